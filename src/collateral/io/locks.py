"""One process at a time fills a folder or file that several studies share: an advisory lock beside it. Torch-free."""

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from collateral.io.log_levels import NOTE

log = logging.getLogger(__name__)

# a file system that knows no locks: Lustre without the mount option flock, NFS without its lock service
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Yield whether another process held the lock of `path` before; if so, it may have filled `path`.

    The lock file `.NAME.lock` beside the file or folder is never removed. The lock ends with the process that holds
    it, however that ends. On NFS, and on Lustre with the mount option `flock`, it holds across machines. Where
    the file system has no locks, a warning says so and nobody waits: each file is still written whole, but two
    processes may fill one folder at a time.

    Raises:
        OSError: the lock file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / f".{path.name}.lock", fallback_to_soft=False)
    waited = _acquire(lock, path)
    try:
        yield waited
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> bool:
    try:
        lock.acquire(timeout=0)
        return False
    except Timeout:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        text = "%s: its file system has no locks (%s); let one study alone download what several share (make stage)"
        log.warning(text, path, error.strerror)
        return False
    log.log(NOTE, "%s is being filled by another process; waiting for it", path)
    start = time.monotonic()
    lock.acquire()
    log.info("%s: waited %.0f s", path, time.monotonic() - start)
    return True
