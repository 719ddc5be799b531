"""One run of the workflow a folder: it is held while its process lives, and cleared up after where it was killed.

A killed Snakemake leaves its lock, and its jobs on a cluster go on. The lock here belongs to the process (`flock`),
so that it is gone with it; a record beside it says that a run has begun and not ended. Torch-free.
"""

import fcntl
import getpass
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from collateral.errors import CollateralError
from collateral.io.atomic import read_json, write_json
from collateral.runtime.job_cache import displace, drop

log = logging.getLogger(__name__)

LOCK, RECORD = "collateral.lock", "collateral.run.json"
BEAT = 30  # seconds between two signs of life
SILENCE = 600  # seconds after which a run on another machine counts as dead
POLL = 10  # seconds between two looks at the queue


def only_run(
    execute: Callable[..., Any],
    workdir: Path,
    begins: Callable[[Any], bool],
    ends: Callable[[], None],
    refused: type[Exception],
) -> Callable[..., Any]:
    """Return Snakemake's execution of a workflow, as the only run of a folder.

    It stands here and not in a rule's file, as whatever goes wrong below would be reported as that file's fault.

    Args:
        execute: called with `executor_plugin` and other arguments by name.
        workdir: where Snakemake runs.
        begins: called first with the executor's common settings; says whether jobs will run.
        ends: called last, however the run ended.
        refused: raised with one line where another run is at work.
    """

    def run(**given: Any) -> Any:
        if not begins(given["executor_plugin"].common_settings):
            return execute(**given)
        try:
            with one_run(workdir, remote=not given["executor_plugin"].common_settings.local_exec):
                return execute(**given)
        except CollateralError as error:
            raise refused(str(error)) from None
        finally:
            ends()

    return run


@contextmanager
def one_run(workdir: Path, *, remote: bool = False) -> Iterator[None]:
    """Hold a folder for one run; first clear up after one that was killed.

    Args:
        workdir: where Snakemake runs.
        remote: whether its jobs go to a cluster, where they outlive a Snakemake that is killed.

    Raises:
        CollateralError: another run is at work there.
    """
    folder = workdir / ".snakemake"
    folder.mkdir(exist_ok=True)
    record = folder / RECORD
    with (folder / LOCK).open("a") as lock:
        _hold(lock, record)
        if record.exists():
            _clear_up(workdir, record)
        about = {"host": socket.gethostname(), "pid": os.getpid(), "began": _now(), "remote": remote}
        write_json(record, about)
        ended = threading.Event()
        threading.Thread(target=_beat, args=(record, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            drop(workdir)
            record.unlink(missing_ok=True)


def _hold(lock: TextIO, record: Path) -> None:
    about = _about(record)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CollateralError(
            _at_work(about, "wait for it, or interrupt it with Ctrl-C where it runs")
        ) from None
    except OSError as error:
        log.warning("%s: this file system has no locks (%s); start one run at a time", record.parent, error)
    # a file system may keep locks for each machine by itself, so another machine's run must also be silent
    if about and about["host"] != socket.gethostname() and time.time() - record.stat().st_mtime < SILENCE:
        remedy = f"if it was killed, wait {SILENCE // 60} minutes, or delete {record}"
        raise CollateralError(_at_work(about, remedy))


def _at_work(about: dict[str, Any], remedy: str) -> str:
    return f"another run is at work in this folder ({_who(about) or 'it has just begun'}); {remedy}"


def _who(about: dict[str, Any]) -> str:
    return "process {pid} on {host}, since {began}".format(**about) if about else ""


def _about(record: Path) -> dict[str, Any]:
    """Return what a run's record says; nothing where there is none, or a torn one."""
    try:
        found: dict[str, Any] = read_json(record)
    except CollateralError:
        return {}
    return found if {"host", "pid", "began"} <= set(found) else {}


def _beat(record: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        try:
            os.utime(record)
        except OSError:
            return


def _clear_up(workdir: Path, record: Path) -> None:
    """Bring to an end what a killed run has left: its jobs, Snakemake's lock, and outputs that nobody recorded."""
    about = _about(record)
    log.warning(
        "the run before was killed (%s); clearing up after it", _who(about) or "it had only just begun"
    )
    if about.get("remote", True):
        wait_for_orphans(workdir)
    shutil.rmtree(workdir / ".snakemake/locks", ignore_errors=True)
    (workdir / ".snakemake/locks").mkdir(exist_ok=True)
    displaced = displace(workdir)
    if displaced:
        log.warning("%d files of jobs that ended after it are kept, and taken back below", len(displaced))


def wait_for_orphans(workdir: Path) -> None:
    """Cancel the Slurm jobs of this folder that wait in the queue, and wait for those that run.

    Nothing happens without Slurm, or while it does not answer.
    """
    if shutil.which("squeue") is None:
        return
    told: frozenset[str] = frozenset()
    while jobs := slurm_jobs(workdir):
        pending = sorted(job for job, state in jobs.items() if state == "PENDING")
        if pending:
            text = "cancelling %d Slurm jobs of the killed run that had not begun: %s"
            log.warning(text, len(pending), " ".join(pending))
            subprocess.run(["scancel", "--state=PENDING", *pending], check=False, capture_output=True)
        running = frozenset(jobs) - frozenset(pending)
        if running and running != told:
            told = running
            log.warning(
                "waiting for %d Slurm jobs of the killed run, so that nothing is computed twice: %s; `scancel` those "
                "whose work may be lost",
                len(running),
                " ".join(sorted(running)),
            )
        time.sleep(POLL)


def slurm_jobs(workdir: Path) -> dict[str, str]:
    """Return id → state of this user's Slurm jobs that Snakemake submitted from a folder; none if Slurm is silent."""
    command = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%k|%Z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning(
            "squeue does not answer (%s); jobs of the killed run are not looked for", done.stderr.strip()
        )
        return {}
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        job, state, comment, place = line.split("|", 3)
        if comment.startswith(("rule_", "group_")) and Path(place).resolve() == workdir.resolve():
            found[job] = state
    return found


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
