"""A running Slurm without a network, and studies that are run on it through the profile."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurmcluster import Cluster, missing, namespace, until
from smallstudy import Project, make_project, save_tiny

STUDY = {
    "models": ["tiny"],
    "datasets": ["embedded"],
    "seeds": [0],
    "editors": ["rome"],
    "checkpoints": [1, 2],
    "suites": ["two"],
}


class ClusterProject(Project):
    """A study that is run through `profiles/slurm`."""

    def __init__(self, folder: Path, cluster: Cluster):
        super().__init__(folder)
        self.cluster = cluster
        self.started: list[subprocess.Popen] = []

    def start(self, *args: str) -> subprocess.Popen:
        """Begin what a user would call; the test ends it. Its terminal is `run.log`."""
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm"]
        command += ["--configfile", "study.yaml", *args]
        environment = {
            **self.cluster.environment,
            "PYTHONPATH": str(self.folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "run.log").open("w") as log:
            process = subprocess.Popen(
                [*self.cluster.prefix, *command],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """Leave no process behind, however the test ended."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def submit(self, *args: str, seconds: float = 500) -> str:
        """Run to the end and return what it said; its exit status is 0."""
        status = self.finish(self.start(*args), seconds)
        assert status == 0, self.said()[-8000:]
        return self.said()

    def finish(self, process: subprocess.Popen, seconds: float = 500) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not finished after {seconds} s: {self.said()[-8000:]}")

    def said(self) -> str:
        return (self.folder / "run.log").read_text()

    def own_queue(self) -> list[dict[str, str]]:
        return [job for job in self.cluster.queue() if job["folder"] == str(self.folder)]

    def running(self, comment: str) -> str:
        """Wait until a job runs whose comment begins like this, and return its id."""
        found: list[str] = []

        def runs() -> bool:
            queue = self.own_queue()
            found[:] = [
                job["id"] for job in queue if job["state"] == "RUNNING" and job["comment"].startswith(comment)
            ]
            return bool(found)

        until(runs, f"{comment} to run: {self.said()[-3000:]}", 300)
        return found[0]

    def ended(self) -> list[dict[str, str]]:
        """This study's jobs that have ended, in Slurm's words, with `job`: the rule or group, and its wildcards."""
        logs = {path.stem: path.relative_to(self.folder / "logs/slurm") for path in self.slurm_logs()}
        jobs = [job for job in self.cluster.history() if job["WorkDir"] == str(self.folder)]
        return [
            {**job, "job": str(logs[job["JobId"]].parent) if job["JobId"] in logs else ""} for job in jobs
        ]

    def slurm_logs(self) -> list[Path]:
        return sorted((self.folder / "logs/slurm").rglob("*.log"))

    def submissions(self) -> list[str]:
        return re.findall(r"has been submitted with SLURM jobid (\d+)", self.said())


def polled_often(folder: Path) -> None:
    """Let the profile look at its jobs as often as it can; nothing else in it is for tests."""
    path = folder / "profiles/slurm/config.yaml"
    text = path.read_text()
    for old, new in {"status-checks: 20": "status-checks: 2", "latency-wait: 60": "latency-wait: 5"}.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text + "seconds-between-status-checks: 1\n")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two nodes whose jobs see no network interface but the loopback that Slurm itself speaks over."""
    if missing():
        pytest.skip(missing())
    with namespace() as prefix:
        running = Cluster(tmp_path_factory.mktemp("slurm"), prefix)
        try:
            yield running.start()
        finally:
            running.stop()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def new_project(cluster, tiny, tmp_path_factory):
    """Make another study of one chain with two checkpoints, in a folder of its own."""
    made: list[ClusterProject] = []

    def make(**sections) -> ClusterProject:
        folder = tmp_path_factory.mktemp("study").resolve()
        make_project(folder, tiny)
        polled_often(folder)
        project = ClusterProject(folder, cluster)
        made.append(project)
        suites = {"two": {"tasks": ["embedded-sentiment"], "limit": 2}}
        project.configure(study=STUDY, suites=suites, **sections)
        return project

    yield make
    for project in made:
        project.stop()


def share(project: Project, resources: Path) -> None:
    """Let a study keep what it downloads where others keep it too."""
    for name in ("models", "datasets", "downloads", "benchmarks"):
        (resources / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(project.folder / "resources" / name, ignore_errors=True)
        (project.folder / "resources" / name).symlink_to(resources / name)
