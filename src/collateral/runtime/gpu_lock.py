"""Which GPU of a machine a job uses, so that two jobs never share one by accident. Torch-free.

A job holds a lock on a file in the temporary folder; the lock ends with the process, however that ends. It binds the
jobs of this project, of all users and studies of the machine, and no other program. (`filelock` opens lock files for
writing, so it cannot take the lock of a file that another user has made.)
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
_PAUSE = 1.0  # seconds between two looks at GPUs that are all in use
_held: list[int] = []  # open locks: they last as long as the process


def take_gpu(device: str) -> str:
    """Return the GPU that a job computes on, and hide all others from the process; empty where nothing is chosen.

    Nothing is chosen for a device that is not plain `cuda`, on a machine without NVIDIA's tools, and where the
    environment names one GPU already, as a cluster does. Call it before CUDA is initialised.

    Args:
        device: of the job's model.
    """
    gpus = find_gpus(os.environ) if device == "cuda" else []
    if not gpus or (VISIBLE in os.environ and len(gpus) == 1):
        return ""
    gpu = lock_free_gpu(gpus, Path(tempfile.gettempdir()), os.environ.get("SLURM_JOB_ID", "machine"))
    os.environ[VISIBLE] = gpu
    return gpu


def find_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that a job may use: those that the environment names, else all of the machine, by UUID."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def lock_free_gpu(gpus: Sequence[str], folder: Path, pool: str) -> str:
    """Lock the first GPU that no other process holds, and return it; wait while all are held.

    Args:
        gpus: by index or UUID.
        folder: of the lock files.
        pool: whose numbers the indices are: a Slurm job counts its GPUs from 0, whichever they are.
    """
    waits = False
    while True:
        for gpu in gpus:
            lock = _open_lock(folder / f"collateral-gpu-{pool}-{gpu.replace('/', '-')}.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            _held.append(lock)
            return gpu
        if not waits:
            log.info("all of %s are in use; waiting for one", ", ".join(gpus))
            waits = True
        time.sleep(_PAUSE)


def _open_lock(path: Path) -> int:
    """Return a descriptor of a lock file; an existing one is only read, as it may be another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW)
        os.fchmod(descriptor, 0o644)  # whatever the umask
        return descriptor
