"""What a process frees goes back to the system, and does not stay in it."""

import subprocess
import sys

# Blocks of 1 MiB with small ones between them, which stay and keep the heap from shrinking at its end.
JOB = """
import sys
import torch
from pathlib import Path
from collateral.models.memory import keep_little, trim

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

if sys.argv[1] == "keep_little":
    keep_little()
del [torch.ones(6_000_000) for _ in range(2)][:]  # glibc's own threshold rises with what is freed
large, small = [], []
for _ in range(200):
    large.append(torch.ones(262_144))
    small.append(torch.ones(1_000))
full = resident()
del large
freed = full - resident()
trim()
print(freed, full - resident())
"""


def freed(how: str) -> tuple[int, int]:
    """Return the MiB that were given back at once, and after `trim`."""
    done = subprocess.run([sys.executable, "-c", JOB, how], capture_output=True, text=True, check=True)
    at_once, trimmed = done.stdout.split()
    return int(at_once), int(trimmed)


def test_large_blocks_go_back_as_soon_as_they_are_freed():
    assert freed("keep_little")[0] >= 190


def test_what_was_freed_goes_back_when_asked():
    at_once, trimmed = freed("glibc")
    assert at_once < 100
    assert trimmed >= 190
