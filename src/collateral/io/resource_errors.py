"""What a job lacked of its machine, disk, permission or memory: one line with the remedy. Torch-free."""

import errno
import re

from collateral.errors import CollateralError

_UNFINISHED = ".partial"  # of a file that nobody has heard of
_AGAIN = "and run the same command again: what is finished stays"
_MEMORY = (
    "give the job more, with `--set-resources RULE:mem_mb=…` on a cluster (docs/cluster.md) or fewer `--cores` here, "
    + _AGAIN
)
_REASONS = {
    errno.ENOSPC: ("the disk is full", f"free space on it {_AGAIN}"),
    errno.EDQUOT: ("your quota on this disk is used up", f"free some of it {_AGAIN}"),
    errno.EFBIG: ("the file is larger than this disk or `ulimit -f` allows", f"raise the limit {_AGAIN}"),
    errno.EROFS: ("the file system is read-only", f"work in a folder that can be written {_AGAIN}"),
    errno.EACCES: ("permission denied", f"give yourself the right to read and write there {_AGAIN}"),
    errno.EPERM: ("this is not permitted here", f"give yourself the right to read and write there {_AGAIN}"),
    errno.EMFILE: ("too many files are open", f"raise `ulimit -n` {_AGAIN}"),
    errno.ENFILE: ("the machine has too many files open", f"end other programs {_AGAIN}"),
    errno.EIO: ("the disk failed to read or write", f"check it (`dmesg`), or use another one, {_AGAIN}"),
    errno.ENOMEM: ("there is not enough memory", _MEMORY),
    errno.EAGAIN: ("there is not enough memory for another thread, or `ulimit -u` allows none", _MEMORY),
}
# libraries say it in their own words: Rust's, torch's on the processor and on a GPU
_RUST = re.compile(r"\(os error (\d+)\)")
_TORCH = re.compile(r"memory: you tried to allocate|out of memory|[Uu]nable to mmap \d+ bytes")
_THREAD = re.compile(r"launch worker thread|can't start new thread")


def shortage(error: BaseException, path: object = None) -> CollateralError | None:
    """Return what the job lacked as one line: which file, what was short, the remedy; None for any other error.

    Args:
        error: whatever ended the job.
        path: the file that was at work, for errors that name none.
    """
    number = _number(error)
    if number not in _REASONS:
        return None
    reason, remedy = _REASONS[number]
    named = _file(error)
    where = path if path and (not named or named.endswith(_UNFINISHED)) else named
    if number == errno.ENOMEM:
        detail = " ".join(str(error).split())[:200]
        reason = f"{reason} ({detail})" if detail and not isinstance(error, OSError) else reason
    return CollateralError(f"{where}: {reason}; {remedy}" if where else f"{reason}; {remedy}")


def _number(error: BaseException) -> int | None:
    """Return the operating system's number of what went wrong."""
    text = str(error)
    if _THREAD.search(text):
        return errno.EAGAIN
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno != errno.EAGAIN else None  # of a lock it says something else
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return errno.ENOMEM
    if isinstance(error, RuntimeError) and _TORCH.search(text):
        return errno.ENOMEM
    found = _RUST.search(text)
    return int(found[1]) if found else None


def _file(error: BaseException) -> str:
    """Return the file that an error of the system names; of a rename, where it should go."""
    if not isinstance(error, OSError):
        return ""
    named = error.filename2 or error.filename
    return named.decode(errors="replace") if isinstance(named, bytes) else str(named or "")
