"""Files that carry the sha256 of their own bytes, so that nobody reads one after a byte of it changed. Torch-free.

Parquet's page checksums leave out the footer, and JSON has none. So a writer leaves room for 64 hex digits under the
key `collateral_seal` (in the footer's metadata, or as one more key), and the digest of the whole file, with zeros in
that room, is put there last. The files stay plain parquet and plain JSON to every other reader.
"""

import hashlib
import mmap
import os
from pathlib import Path

from collateral.errors import CollateralError
from collateral.io.resource_errors import shortage

KEY = "collateral_seal"
BLANK = "0" * 64  # what a writer leaves
REMEDY = "delete it and run the workflow again"

# what comes before the digits: in thrift's compact form, and in the outermost object of indented JSON
_MARKS = (KEY.encode() + b"\x18@", f'\n  "{KEY}": "'.encode())


def seal(path: Path) -> None:
    """Put the digest of a file's bytes into the room that its writer left.

    Raises:
        ValueError: there is no such room, or it is not blank.
    """
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        start = _room(view)
        if start is None or view[start : start + 64] != BLANK.encode():
            raise ValueError(f"{path}: no room for a seal")
        view[start : start + 64] = _digest(view, start)


def check_seal(path: Path, kind: str) -> None:
    """Check that a file is as it was written.

    Args:
        path: the file.
        kind: what it should be, for the message.

    Raises:
        CollateralError: it is missing, empty, without a seal, or its bytes are not those that were sealed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise CollateralError(f"{path}: not readable as {kind} (it is empty); {REMEDY}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                start = _room(view)
                if start is None:
                    raise CollateralError(
                        f"{path}: not readable as {kind} (no sha256 of its own is in it: it was cut short, or comes "
                        f"from an older version or another program); {REMEDY}"
                    )
                if view[start : start + 64] != _digest(view, start):
                    raise CollateralError(
                        f"{path}: not readable as {kind} (its bytes were altered: their sha256 is not the one in "
                        f"the file); {REMEDY}"
                    )
    except FileNotFoundError:
        raise CollateralError(f"{path}: {kind} is missing; run the workflow again to make it") from None
    except OSError as error:
        unreadable = CollateralError(f"{path}: not readable as {kind} ({error.strerror}); {REMEDY}")
        raise shortage(error, path) or unreadable from None  # a file that may not be read is not damaged


def _room(view: mmap.mmap) -> int | None:
    """Return where the digest stands: the last of such places, since a footer comes after every value."""
    place, start = 0, None
    for mark in _MARKS:
        at = view.rfind(mark, place)  # not before the other: a large table is not searched for JSON's
        if at >= 0:
            place, start = at, at + len(mark)
    return start if start is not None and start + 64 <= len(view) else None


def _digest(view: mmap.mmap, start: int) -> bytes:
    with memoryview(view) as whole:
        total = hashlib.sha256(whole[:start])
        total.update(BLANK.encode())
        total.update(whole[start + 64 :])
    return total.hexdigest().encode()
