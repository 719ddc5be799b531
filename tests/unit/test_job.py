"""A job's frame: a user's mistake is one line on the terminal, everything is in the log, the exit status says so."""

import os
import subprocess
import sys

import pytest

from collateral.runtime.job import COMMAND, is_unfinished

BODY = """
import logging, sys
from collateral.errors import CollateralError
from collateral.runtime.job import job
from collateral.io.log_levels import NOTE
with job(sys.argv[1]):
    print("a library talks")
    logging.getLogger("collateral.x").info("detail")
    logging.getLogger("collateral.x").log(NOTE, "worth knowing")
    {end}
"""


def run(tmp_path, end):
    log = tmp_path / "deep" / "job.log"
    command = [sys.executable, "-c", BODY.format(end=end), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, log.read_text()


def test_a_good_job_shows_only_its_notes(tmp_path):
    code, terminal, log = run(tmp_path, "pass")
    assert (code, terminal) == (0, "NOTE: worth knowing\n")
    assert "a library talks" in log
    assert "INFO detail" in log


def test_a_users_mistake_is_one_line(tmp_path):
    code, terminal, log = run(tmp_path, 'raise CollateralError("x.yaml: key is 3; allowed: 1 or 2")')
    assert code == 1
    assert terminal == "NOTE: worth knowing\nERROR: x.yaml: key is 3; allowed: 1 or 2\n"
    assert "ERROR x.yaml" in log


def test_a_fault_of_the_program_has_its_traceback(tmp_path):
    code, terminal, log = run(tmp_path, "1 / 0")
    assert code == 1
    assert "ZeroDivisionError" in terminal
    assert "ZeroDivisionError" in log


CLAIMED = """
import sys

import pytest
from pathlib import Path
from collateral.errors import CollateralError
from collateral.runtime.job import is_unfinished, job
from collateral.runtime.job_cache import make_claim
with job("job.log", claim=make_claim("edit", ["in"], ["results/delta"], {{}})):
    assert is_unfinished(Path("job.log"))
    Path("results").mkdir(exist_ok=True)
    {body}
"""
MADE = 'Path("results/delta").write_text("delta")'


def run_claimed(folder, body):
    """Run a job with a claim in a folder; its log's lines."""
    (folder / "in").write_text("facts")
    environment = {**os.environ, COMMAND: "snakemake --cores 2 --"}
    command = [sys.executable, "-c", CLAIMED.format(body=body)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (folder / "job.log").read_text().splitlines()


def test_the_log_of_a_job_begins_with_the_command_that_repeats_it_alone(tmp_path):
    code, lines = run_claimed(tmp_path, MADE)
    assert code == 0
    assert lines[0].endswith("INFO begun; alone: snakemake --cores 2 -- results/delta")
    assert lines[-1].endswith("INFO done")
    assert not is_unfinished(tmp_path / "job.log")


def test_a_job_that_was_finished_before_ends_where_it_begins(tmp_path):
    run_claimed(tmp_path, MADE)
    (tmp_path / "results/delta").unlink()
    code, lines = run_claimed(tmp_path, 'raise RuntimeError("computed again")')
    assert code == 0
    assert (tmp_path / "results/delta").read_text() == "delta"
    assert "taken back" in lines[1]
    assert not is_unfinished(tmp_path / "job.log")


def test_a_job_that_failed_and_one_that_never_began_are_told_apart(tmp_path):
    log = tmp_path / "job.log"
    assert not is_unfinished(log)
    log.write_text("")
    assert not is_unfinished(log)
    code, lines = run_claimed(tmp_path, 'raise CollateralError("layer 9 is outside the model")')
    assert code == 1
    assert lines[-1].endswith("layer 9 is outside the model")
    assert is_unfinished(log)


def test_a_job_takes_a_gpu_and_logs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    body = BODY.replace("job(sys.argv[1])", "job(sys.argv[1], 'cuda')")
    end = 'import os; print("sees", os.environ["CUDA_VISIBLE_DEVICES"])'
    command = [sys.executable, "-c", body.format(end=end), str(tmp_path / "job.log")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    log = (tmp_path / "job.log").read_text()
    assert "takes the GPU 3" in log
    assert "sees 3\n" in log


SHORT = [
    (
        'raise PermissionError(13, "Permission denied", "results/x")',
        "results/x: permission denied; give yourself",
    ),
    (
        'raise OSError(28, "No space left on device", "results/x")',
        "results/x: the disk is full; free space on it",
    ),
    ("raise MemoryError", "there is not enough memory; give the job more, with `--set-resources"),
    (
        'raise RuntimeError("[enforce] not enough memory: you tried to allocate 9 bytes.")',
        "tried to allocate 9 bytes",
    ),
]


@pytest.mark.parametrize(("end", "said"), SHORT, ids=["permission", "disk", "memory", "torch"])
def test_what_the_machine_lacks_is_one_line_and_the_log_says_where(tmp_path, end, said):
    code, terminal, log = run(tmp_path, end)
    assert code == 1
    (_, line) = terminal.splitlines()
    assert line.startswith("ERROR: ")
    assert said in line
    assert "and run the same command again" in line
    assert "fault of the program" not in log
    assert "Traceback" in log


@pytest.mark.parametrize(
    ("unbuffered", "said"), [("", "ERROR: x.yaml: wrong\n"), ("1", "ERROR: the disk is full; free space")]
)
def test_a_log_on_a_full_disk_hides_no_error(unbuffered, said):
    """The line goes to the terminal all the same: the job's own, or that what it printed found no room."""
    command = [sys.executable, "-c", BODY.format(end='raise CollateralError("x.yaml: wrong")'), "/dev/full"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "fault of the program" not in done.stderr
