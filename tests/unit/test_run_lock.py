"""One run a folder: held while its process lives, cleared up after where it was killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from collateral.errors import CollateralError
from collateral.runtime import run_lock
from collateral.runtime.run_lock import find_run, hold_run, slurm_jobs, wait_for_orphans

HOLD = """
import sys, time
from pathlib import Path
from collateral.runtime.run_lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A `squeue` and a `scancel` that answer from a file, for what no test can wait for on a real Slurm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    lines = tmp_path / "queue"
    lines.write_text("")
    for name, text in {
        "squeue": f"cat {lines}",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled; sed -i /PENDING/d {lines}',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lines


def record(place):
    return place / ".snakemake" / run_lock.RECORD


def test_the_second_run_says_who_is_at_work_and_stops(tmp_path, holder):
    refused = pytest.raises(
        CollateralError, match=rf"another run is at work.*process {holder.pid} .*wait for it"
    )
    with refused, hold_run(tmp_path):
        pytest.fail("two runs in one folder")
    assert holder.poll() is None


def test_a_run_that_ended_leaves_nothing_to_clear_up(tmp_path, caplog):
    for _ in range(2):
        with hold_run(tmp_path):
            assert json.loads(record(tmp_path).read_text())["pid"] == os.getpid()
        assert not record(tmp_path).exists()
    assert not caplog.records


def test_a_run_that_failed_leaves_nothing_to_clear_up(tmp_path):
    with pytest.raises(ValueError, match="failed"), hold_run(tmp_path):
        raise ValueError("failed")
    assert not record(tmp_path).exists()


def test_the_next_run_clears_up_after_one_that_was_killed(tmp_path, holder, queue):
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir()
    (locks / "0.output.lock").write_text("results/a\n")
    assert find_run(tmp_path).startswith("another run is at work")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not find_run(tmp_path)
    with hold_run(tmp_path):
        assert not locks.exists()


def test_locks_of_a_living_snakemake_without_our_record_are_left_alone(tmp_path):
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/a\n")
    with hold_run(tmp_path):
        assert [path.name for path in locks.iterdir()] == ["0.output.lock"]


def test_a_run_on_another_machine_is_believed_alive_until_it_is_silent(tmp_path, queue):
    """Some file systems keep locks for each machine by itself."""
    record(tmp_path).parent.mkdir()
    record(tmp_path).write_text(json.dumps({"host": "login-2", "pid": 1, "began": "noon"}))
    refused = pytest.raises(CollateralError, match=r"process 1 on login-2, since noon.*delete .*run\.json")
    with refused, hold_run(tmp_path):
        pytest.fail("two runs in one folder")
    silent = time.time() - run_lock.SILENCE - 1
    os.utime(record(tmp_path), (silent, silent))
    with hold_run(tmp_path):
        pass


def test_a_living_run_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.01)
    with hold_run(tmp_path):
        os.utime(record(tmp_path), (0, 0))
        end = time.monotonic() + 10
        while record(tmp_path).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert record(tmp_path).stat().st_mtime > 0


def test_a_torn_record_counts_as_a_killed_run(tmp_path, queue):
    record(tmp_path).parent.mkdir()
    record(tmp_path).write_text('{"host": "lo')
    with hold_run(tmp_path):
        pass


def test_only_this_folders_jobs_of_snakemake_are_orphans(tmp_path, queue):
    queue.write_text(
        f"1|RUNNING|rule_edit_wildcards_a|{tmp_path}\n"
        f"2|PENDING|group_chain|{tmp_path}\n"
        f"3|RUNNING|rule_edit|{tmp_path}/other\n"
        f"4|RUNNING|(null)|{tmp_path}\n"
    )
    assert slurm_jobs(tmp_path) == {"1": "RUNNING", "2": "PENDING"}


def test_orphans_that_wait_are_cancelled_and_those_that_run_are_waited_for(
    tmp_path, queue, monkeypatch, caplog
):
    queue.write_text(f"7|PENDING|rule_weigh|{tmp_path}\n8|RUNNING|rule_edit|{tmp_path}\n")
    looks = []

    def sleep(seconds):
        looks.append(slurm_jobs(tmp_path))
        if len(looks) == 2:
            queue.write_text("")

    monkeypatch.setattr(run_lock.time, "sleep", sleep)
    wait_for_orphans(tmp_path)
    assert (tmp_path / "cancelled").read_text() == "--state=PENDING 7\n"
    assert looks == [{"8": "RUNNING"}] * 2
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in said] == [
        "cancelling 1 Slurm jobs of the killed run that had not begun",
        "waiting for 1 Slurm jobs of the killed run, so that nothing is computed twice",
    ]


def test_a_slurm_that_does_not_answer_stops_nothing(tmp_path, queue, monkeypatch):
    (tmp_path / "bin/squeue").write_text("#!/bin/sh\necho down >&2\nexit 1\n")
    wait_for_orphans(tmp_path)
