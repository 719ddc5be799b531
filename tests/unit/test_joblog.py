"""A job's frame: a user's mistake is one line on the terminal, everything is in the log, the exit status says so."""

import subprocess
import sys

BODY = """
import logging, sys
from collateral.errors import CollateralError
from collateral.joblog import NOTE, job
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


def test_a_job_takes_a_card_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    body = BODY.replace("job(sys.argv[1])", 'job(sys.argv[1], 1, "cuda")')
    end = 'import os; print("sees", os.environ["CUDA_VISIBLE_DEVICES"])'
    command = [sys.executable, "-c", body.format(end=end), str(tmp_path / "job.log")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    log = (tmp_path / "job.log").read_text()
    assert "takes the card 3" in log
    assert "sees 3\n" in log
