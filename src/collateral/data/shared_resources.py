"""Resources that several studies share: what each was made from, and that all of them mean the same. Torch-free."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json, sha256_file, write_json
from collateral.io.locks import hold_lock


def is_shared(path: Path) -> bool:
    """Return whether a relative path leads through a link, so that it lies outside the study's own folder."""
    return any(folder.is_symlink() for folder in Path(path).parents)


def model_source(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's source with its folder, if it has one, as an absolute path: the same for every study."""
    if "folder" not in source:
        return dict(source)
    return {**source, "folder": os.path.abspath(Path(source["folder"]).expanduser())}  # noqa: PTH100 (links stay)


def facts_source(dataset: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return what a table of facts is made from: how its file is read, and a download's name, which is its content's.

    Args:
        dataset: `loader`, `path` (None for a download), `limit` and `questions`.
        file: the download, or the first file of the path.
    """
    return {**dataset, "download": None if dataset["path"] else file}


def record(path: Path) -> Path:
    """Return the file that says what a prepared table was made from; of a model it is the manifest itself."""
    path = Path(path)
    return path if path.name == "manifest.json" else path.with_suffix(".source.json")


def check_source(path: Path, source: Mapping[str, Any]) -> bool:
    """Return whether `path` is known to have been made from another source than this study's.

    Raises:
        CollateralError: it was, and other studies share it, so that this one must not make it anew.
    """
    made = record(path)
    if not made.is_file():
        return False
    try:
        found = read_sealed_json(made, "a record")["source"]
    except CollateralError:
        if is_shared(path):
            raise
        return False  # damaged, or of an older version: what it stands beside is verified or made again
    wanted = json.loads(json.dumps(source))
    if "folder" in found:
        found = model_source(found)
    if found == wanted:
        return False
    if is_shared(path):
        differs = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        raise CollateralError(
            f"{path} is shared with other studies (its folder is a link) and was made from "
            f"{_shown(found, differs)}, but this study asks for {_shown(wanted, differs)}; give it another name in "
            "the config, or this study a folder of its own"
        )
    return True


def _shown(source: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key}: {json.dumps(source.get(key))}" for key in keys)


@contextmanager
def made_from(path: Path, source: Mapping[str, Any]) -> Iterator[None]:
    """Hold the lock of a prepared table while the block writes it, and record what it was made from.

    Raises:
        CollateralError: other studies share it, and it was made from something else.
    """
    with hold_lock(path):
        if check_source(path, source):
            record(path).unlink()  # so that no table stands beside another one's record
        yield
        write_record(path, source)


def write_record(path: Path, source: Mapping[str, Any]) -> None:
    """Record beside a file what it was made from, and its sha256."""
    write_json(record(path), {"source": dict(source), "sha256": sha256_file(path)})


def check_record(path: Path) -> None:
    """Check a file that cannot carry its own sha256 against the record beside it, if there is one.

    Raises:
        CollateralError: the file is missing, or its bytes are not those that were recorded.
    """
    path = Path(path)
    if not path.is_file():
        raise CollateralError(f"{path}: missing; run the workflow again to make it")
    made = record(path)
    if not made.is_file():
        return
    expected = read_sealed_json(made, "a record").get("sha256")
    if expected and sha256_file(path) != expected:
        raise CollateralError(
            f"{path}: its bytes were altered: their sha256 is not the one in {made.name}; delete it and run the "
            "workflow again"
        )
