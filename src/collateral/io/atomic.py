"""Files that are either whole or absent: temporary file in the same folder, flush, fsync, rename."""

import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.io.checksum import BLANK, KEY, check_seal, seal
from collateral.io.resource_errors import shortage

STALE = 3600  # seconds


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends without an error.

    Raises:
        CollateralError: nothing was written to the temporary path, or the disk is full, read-only or not permitted.
    """
    path = Path(path)
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(descriptor)
        partial = Path(name)
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        put_in_place(partial, path)
    except CollateralError:
        raise
    except (
        Exception
    ) as error:  # libraries have their own types for a full disk, and few of them name the file
        lacked = shortage(error, path)
        if lacked is None:
            raise
        raise lacked from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed writers of a file left beside it; one that wrote within the hour may be alive."""
    for torn in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            if time.time() - torn.stat().st_mtime > STALE:
                torn.unlink()
        except OSError:
            continue  # another process was first, or may do more here than this one


def put_in_place(partial: Path, path: Path) -> None:
    """Rename the finished file `partial` to `path`, of the same folder; a power cut leaves one or the other.

    Raises:
        CollateralError: `partial` is empty.
    """
    if partial.stat().st_size == 0:
        raise CollateralError(f"{path}: the writer produced an empty file, which was not kept; run it again")
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself survives a power cut
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON with sorted keys and a seal, whole or not at all."""
    text = json.dumps({**value, KEY: BLANK}, indent=2, sort_keys=True, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
        seal(partial)


def read_sealed_json(path: Path, kind: str = "JSON") -> dict[str, Any]:
    """Return the object that `write_json` wrote.

    Args:
        path: the file.
        kind: what it should be, for the message.

    Raises:
        CollateralError: missing, empty, altered, or not written by `write_json`.
    """
    check_seal(path, kind)
    value: dict[str, Any] = read_json(path)
    del value[KEY]
    return value


def read_json(path: Path) -> Any:
    """Return the JSON value in a file that may come from elsewhere.

    Raises:
        CollateralError: the file is missing, empty or not JSON; the message says to delete it and run again.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CollateralError(f"{path}: file not found; run the workflow again to make it") from None
    except (ValueError, OSError, RecursionError) as error:
        unreadable = CollateralError(
            f"{path}: not readable as JSON ({error}); delete the file and run the workflow again"
        )
        raise shortage(error, path) or unreadable from None


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of the file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
