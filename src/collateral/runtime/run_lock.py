"""One run of the workflow per folder: a lock while its process lives, and the clean-up after a run that was killed.

A killed Snakemake leaves its lock, and its jobs on a cluster go on. The lock here belongs to the process (`flock`),
so that it ends with it; a record beside it says that a run has begun and not ended. Torch-free.
"""

import getpass
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from collateral.errors import CollateralError
from collateral.io.atomic import read_json, write_json
from collateral.runtime.job_cache import displace_outputs, drop_finished

log = logging.getLogger(__name__)

LOCK, RECORD = "collateral.lock", "collateral.run.json"
BEAT = 30  # seconds between two signs of life
SILENCE = 600  # seconds after which a run on another machine counts as dead
POLL = 10  # seconds between two looks at the queue


@contextmanager
def hold_run(workdir: Path, *, remote: bool = False) -> Iterator[None]:
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
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    _acquire(lock, record)
    try:
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
            drop_finished(workdir)
            record.unlink(missing_ok=True)
    finally:
        lock.release()


def find_run(workdir: Path) -> str:
    """Return which run is at work in a folder; empty where none is."""
    folder = workdir / ".snakemake"
    if not folder.is_dir():
        return ""
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        _acquire(lock, folder / RECORD)
    except CollateralError as error:
        return str(error)
    lock.release()
    return ""


def _acquire(lock: FileLock, record: Path) -> None:
    about = _read_about(record)
    try:
        lock.acquire()
    except Timeout:
        raise CollateralError(
            _refuse(about, "wait for it, or interrupt it with Ctrl-C where it runs")
        ) from None
    except OSError as error:
        log.warning("%s: this file system has no locks (%s); start one run at a time", record.parent, error)
    # a file system may keep locks for each machine by itself, so another machine's run must also be silent
    if about and about["host"] != socket.gethostname() and time.time() - record.stat().st_mtime < SILENCE:
        remedy = f"if it was killed, wait {SILENCE // 60} minutes, or delete {record}"
        lock.release()
        raise CollateralError(_refuse(about, remedy))


def _refuse(about: dict[str, Any], remedy: str) -> str:
    return f"another run is at work in this folder ({_who(about) or 'it has just begun'}); {remedy}"


def _who(about: dict[str, Any]) -> str:
    return "process {pid} on {host}, since {began}".format(**about) if about else ""


def _read_about(record: Path) -> dict[str, Any]:
    """Return what a run's record says; nothing where there is none, or a torn one."""
    try:
        about: dict[str, Any] = read_json(record)
    except CollateralError:
        return {}
    return about if {"host", "pid", "began"} <= set(about) else {}


def _beat(record: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        try:
            os.utime(record)
        except OSError:
            return


def _clear_up(workdir: Path, record: Path) -> None:
    """Clear what a killed run has left: its jobs, Snakemake's lock, and outputs that Snakemake has not recorded."""
    about = _read_about(record)
    log.warning(
        "the run before was killed (%s); clearing up after it", _who(about) or "it had only just begun"
    )
    if about.get("remote", True):
        wait_for_orphans(workdir)
    _unlock(workdir)
    displaced = displace_outputs(workdir)
    if displaced:
        log.warning("%d files of jobs that ended after it are kept, and taken back below", len(displaced))


def _unlock(workdir: Path) -> None:
    """Release Snakemake's lock of a folder. It needs no Snakefile, so an empty one does."""
    command = [sys.executable, "-m", "snakemake", "--unlock", "--snakefile", os.devnull]
    done = subprocess.run(command, cwd=workdir, capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("%s cannot be unlocked: %s", workdir, done.stderr.strip())


def wait_for_orphans(workdir: Path) -> None:
    """Cancel the Slurm jobs of this folder that wait in the queue, and wait for those that run.

    Nothing happens without Slurm, or while it does not answer.
    """
    if shutil.which("squeue") is None:
        return
    logged: frozenset[str] = frozenset()
    while jobs := slurm_jobs(workdir):
        pending = sorted(job for job, state in jobs.items() if state == "PENDING")
        if pending:
            text = "cancelling %d Slurm jobs of the killed run that had not begun: %s"
            log.warning(text, len(pending), " ".join(pending))
            subprocess.run(["scancel", "--state=PENDING", *pending], check=False, capture_output=True)
        running = frozenset(jobs) - frozenset(pending)
        if running and running != logged:
            logged = running
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
    jobs: dict[str, str] = {}
    for line in done.stdout.splitlines():
        job, state, comment, folder = line.split("|", 3)
        if comment.startswith(("rule_", "group_")) and Path(folder).resolve() == workdir.resolve():
            jobs[job] = state
    return jobs


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
