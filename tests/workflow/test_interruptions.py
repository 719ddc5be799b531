"""Two runs in one folder, and a run that is killed: the real Snakemake on one machine."""

import os
import signal
import subprocess

import pytest

from collateral.pipeline.verify import verify
from slurmcluster import until

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def weights(project) -> list[str]:
    found = sorted(project.folder.glob("results/edited/tiny/embedded/seed-0/*/edits-*/weights.parquet"))
    return [str(path.relative_to(project.folder)) for path in found]


def begin(project, targets) -> subprocess.Popen:
    """Start a run of one job after another, and wait until it is at work."""
    process = project.started(
        *targets, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    record = project.folder / ".snakemake/collateral.run.json"
    until(lambda: record.exists() and any(project.folder.glob(".snakemake/scripts/*.py")), "a job", 120)
    return process


def without_weights(project, most: int = 6) -> list[str]:
    """Take so many of the weight statistics away, and return their names."""
    targets = weights(project)
    assert len(targets) == 6
    for name in targets[:most]:
        (project.folder / name).unlink()
    return targets[:most]


def test_a_second_run_in_the_folder_says_who_is_at_work_and_stops(copy, finished):
    targets = without_weights(copy, 3)
    first = begin(copy, targets)
    try:
        second = copy.snakemake("--", *targets)
        assert second.returncode == 1
        said = second.stdout + second.stderr
        assert f"another run is at work in this folder (process {first.pid} on " in said
        assert "Traceback" not in said
        assert first.wait(300) == 0
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
    assert copy.results() == finished.results()


def test_after_a_kill_the_same_command_again_completes_the_study(copy, finished):
    targets = without_weights(copy)
    killed = begin(copy, targets)
    until(lambda: len(weights(copy)) >= 2, "two results", 200)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(weights(copy)) < 6
    again = copy.snakemake("--", *targets)
    said = again.stdout + again.stderr
    assert again.returncode == 0, said[-4000:]
    assert f"the run before was killed (process {killed.pid} on " in said
    assert copy.results() == finished.results()
    assert copy.planned("--", *targets) == set()
    assert list((copy.folder / "results/.kept").iterdir()) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_no_lock_and_no_half_file(copy, finished, name):
    """Ctrl-C reaches the whole group of processes; a scheduler's SIGTERM only Snakemake."""
    targets = without_weights(copy)
    begun = begin(copy, targets)
    until(lambda: len(weights(copy)) >= 1, "a result", 200)
    (os.killpg if name == "SIGINT" else os.kill)(begun.pid, signal.Signals[name])
    assert begun.wait(200) != 0
    assert not list(copy.folder.glob(".snakemake/locks/*"))
    assert not (copy.folder / ".snakemake/collateral.run.json").exists()
    assert [fault.said for fault in verify(copy.folder).faults] == []
    assert 1 <= len(weights(copy)) < 6
    again = copy.snakemake("--", *targets)
    assert again.returncode == 0, (again.stdout + again.stderr)[-4000:]
    assert copy.results() == finished.results()
