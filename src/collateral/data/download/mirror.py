"""A folder that stands for the network: files that somebody put there, found by name and held to their checksum."""

import logging
import os
from pathlib import Path

from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file

log = logging.getLogger(__name__)

LEVELS = 3  # folders below the mirror in which a file may lie


def mirrored(mirror: Path, name: str, sha256: str | None) -> Path:
    """Return the file called `name` in `mirror` or up to three folders below it.

    Links to files count, links to folders do not: a search never leaves the mirror and never runs in a circle.
    Of several files of that name the one with the checksum is taken, the same whatever order the disk lists them in.

    Args:
        mirror: the folder.
        name: the file's base name.
        sha256: what the file must hash to; None takes the file unverified, with a warning.

    Raises:
        CollateralError: no such folder or file, a wrong checksum, or several files and no checksum that chooses.
    """
    if not mirror.is_dir():
        raise CollateralError(f"mirror: the folder {mirror} does not exist; name a folder that holds {name}")
    found: dict[Path, str] = {}
    for path in files_named(mirror, name):
        found[path] = sha256_file(path)
        if found[path] == sha256:
            return path
    if not found:
        wanted = f" (sha256 {sha256})" if sha256 else ""
        raise CollateralError(
            f"mirror: no file {name}{wanted} in {mirror} or up to {LEVELS} folders below it; put it there"
        )
    seen = ", ".join(f"{path} has {digest}" for path, digest in found.items())
    if sha256 is not None:
        raise CollateralError(
            f"mirror: {name} must have the sha256 {sha256}, but {seen}; the file is damaged or another version: "
            "put the right one there"
        )
    if len(set(found.values())) > 1:
        raise CollateralError(
            f"mirror: several files are called {name} and differ: {seen}; leave one, or state the source's sha256"
        )
    path, digest = next(iter(found.items()))
    log.warning("%s cannot be verified: its source states no sha256 (the file has %s)", path, digest)
    return path


def files_named(mirror: Path, name: str) -> list[Path]:
    """Return a mirror's files of that name, nearest first, then by path; several links to one file count once."""

    def unreadable(error: OSError) -> None:
        log.warning("mirror: %s is passed over (%s)", error.filename, error.strerror)

    paths: dict[str, Path] = {}
    for folder, below, files in os.walk(mirror, onerror=unreadable):
        depth = len(Path(folder).relative_to(mirror).parts)
        below[:] = sorted(below) if depth < LEVELS else []
        path = Path(folder) / name
        if name in files and path.is_file():  # a broken link is no file
            paths.setdefault(str(path.resolve()), path)
    return sorted(paths.values(), key=lambda path: (len(path.parts), str(path)))
