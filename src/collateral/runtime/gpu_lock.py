"""Which GPU of a machine a job takes, so that two jobs never share one by accident. Torch-free.

A card is taken by a lock on a file in the temporary folder, which ends with the process, however that ends. It binds
the jobs of this project, of all users and studies of the machine, and no other program.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
_PAUSE = 1.0  # seconds between two looks at cards that are all taken
_held: list[int] = []  # open locks: they last as long as the process


def take_card(device: str) -> str:
    """Return the card that a job computes on, and let the process see no other; empty where nothing is chosen.

    That is so for a device that is not plain `cuda`, on a machine without NVIDIA's tools, and where the
    environment names one card already: a cluster has chosen then. Must come before CUDA is initialised.

    Args:
        device: of the job's model.
    """
    found = candidates(os.environ) if device == "cuda" else []
    if not found or (VISIBLE in os.environ and len(found) == 1):
        return ""
    card = first_free(found, Path(tempfile.gettempdir()), os.environ.get("SLURM_JOB_ID", "machine"))
    os.environ[VISIBLE] = card
    return card


def candidates(environment: Mapping[str, str]) -> list[str]:
    """Return the cards that a job may take: those that the environment names, else all of the machine, by UUID."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def first_free(cards: Sequence[str], folder: Path, pool: str) -> str:
    """Return the first card that no other process holds, and hold it; wait while all are held.

    Args:
        cards: by index or UUID.
        folder: of the lock files.
        pool: whose numbers the indices are: a Slurm job counts its cards from 0, whichever they are.
    """
    waits = False
    while True:
        for card in cards:
            lock = _opened(folder / f"collateral-card-{pool}-{card.replace('/', '-')}.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            _held.append(lock)
            return card
        if not waits:
            log.info("all of %s are taken; waiting for one", ", ".join(cards))
            waits = True
        time.sleep(_PAUSE)


def _opened(path: Path) -> int:
    """Return a descriptor of a lock file; one that is there is only read, as it may be another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        made = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW)
        os.fchmod(made, 0o644)  # whatever the umask
        return made
