"""A folder of files that replaces the network: files are found by name and checked by their sha256."""

import os
from pathlib import Path

from collateral.errors import CollateralError
from collateral.io.atomic import sha256_file

LEVELS = 3  # folders below the mirror in which a file may lie


def find_in_mirror(mirror: Path, name: str, sha256: str) -> Path:
    """Return the file called `name`, with the sha256 if one is stated, or raise a CollateralError."""
    hashes = {path: sha256_file(path) for path in files_named(mirror, name)}
    for path, found in hashes.items():
        if found == sha256 or (not sha256 and len(set(hashes.values())) == 1):
            return path
    listed = "".join(f"; {path} has the sha256 {found}" for path, found in hashes.items())
    raise CollateralError(
        f"mirror: {mirror} and {LEVELS} levels of folders below it must hold one file {name} with the sha256 "
        f"{sha256 or 'that the source should state'}{listed or ' and hold none'}; put it there"
    )


def files_named(mirror: Path, name: str) -> list[Path]:
    """Return a mirror's files of a name, nearest first, then by path; linked folders are not searched."""
    paths: dict[Path, Path] = {}  # several links to one file count once
    for folder, below, files in os.walk(mirror):
        below[:] = sorted(below) if len(Path(folder).relative_to(mirror).parts) < LEVELS else []
        path = Path(folder, name)
        if name in files and path.is_file():  # neither a broken link nor a pipe
            paths.setdefault(path.resolve(), path)
    return sorted(paths.values(), key=lambda path: (len(path.parts), str(path)))
