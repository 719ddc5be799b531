"""One process at a time fills a place that several studies share: an advisory lock beside it. Torch-free."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collateral.io.log_levels import NOTE

log = logging.getLogger(__name__)

# a file system that knows no locks: Lustre without the mount option flock, NFS without its lock service
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def only_one(place: Path) -> Iterator[bool]:
    """Yield whether another process held the lock of `place` before; then `place` may be filled by now.

    The lock is that of the file `.NAME.lock` beside the file or folder, which stays: a lock file that is removed lets
    two processes each hold one. The system releases it when its holder ends, however that happens. On NFS and on
    Lustre with the mount option `flock` it holds across machines. Where the file system knows no locks, a warning
    says so and nobody waits: each file is still written whole, but two processes may fill one folder at a time.

    Raises:
        OSError: the lock file cannot be written.
    """
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.parent / f".{place.name}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _acquired(descriptor, place)
    finally:
        os.close(descriptor)


def _acquired(descriptor: int, place: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "%s: its file system knows no locks (%s); let one study alone bring what several share (make stage)",
            place,
            error.strerror,
        )
        return False
    log.log(NOTE, "%s is being filled by another process; waiting for it", place)
    since = time.monotonic()
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    log.info("%s: waited %.0f s", place, time.monotonic() - since)
    return True
