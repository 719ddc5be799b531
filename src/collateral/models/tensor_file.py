"""Named tensors in a safetensors file that knows what it is and notices when it was altered."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.resource_errors import shortage

_KEY = "collateral"  # one metadata key: safetensors writes several in random order


def write_tensors(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, Any]) -> None:
    """Write tensors, possibly none, with a JSON record about them and a hash over both."""
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    _save(contiguous, path, {**about, "sha256": _digest(contiguous, about)})


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, each in memory of its own, and the record about them.

    Args:
        path: the file.
        kind: what it should be, for the message.

    Raises:
        CollateralError: missing, truncated, foreign or altered.
    """
    with _open_file(path, kind) as (handle, about):
        tensors = {name: handle.get_tensor(name).clone() for name in sorted(handle.keys())}
    if about.pop("sha256", None) != _digest(tensors, about):
        raise _altered_error(path, kind)
    return tensors, about


def write_parts(parts: Mapping[str, Tensor], path: Path, about: Mapping[str, Any]) -> None:
    """Write large tensors of which each has a hash of its own, so that one is read without the others."""
    contiguous = {name: part.detach().contiguous().cpu() for name, part in parts.items()}
    record = {**about, "parts": {name: _digest({name: part}, {}) for name, part in contiguous.items()}}
    record["sha256"] = _digest({}, record)
    _save(contiguous, path, record)


def _save(tensors: dict[str, Tensor], path: Path, record: Mapping[str, Any]) -> None:
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={_KEY: json.dumps(record, sort_keys=True)})


def read_about(path: Path, kind: str) -> dict[str, Any]:
    """Return the record about a file of parts; no part is read.

    Raises:
        CollateralError: missing, truncated, foreign or altered.
    """
    with _open_file(path, kind) as (_, about):
        return _check_record(about, path, kind)


def read_part(path: Path, kind: str, name: str) -> tuple[Tensor, dict[str, Any]]:
    """Return one tensor of a file of parts, and the record about all of them.

    Raises:
        CollateralError: the file is missing, truncated, foreign or altered, or has no such part.
    """
    with _open_file(path, kind) as (handle, about):
        record = _check_record(about, path, kind)
        part = handle.get_tensor(name)
    if record["parts"].get(name) != _digest({name: part}, {}):
        raise _altered_error(path, kind)
    return part, record


@contextmanager
def _open_file(path: Path, kind: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield a file and the record in it; what cannot be read is an error of one line."""
    try:
        Path(path).open("rb").close()  # safetensors calls a file missing that may not be read
        with safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {}).get(_KEY, "null"))
            if not isinstance(about, dict):
                raise _altered_error(path, kind)
            yield handle, about
    except (OSError, ValueError, RuntimeError, MemoryError, SafetensorError) as error:
        unreadable = CollateralError(
            f"{path}: not readable as {kind} ({error}); delete it and run the workflow again"
        )
        raise shortage(error, path) or unreadable from None  # for want of memory nothing is to be deleted


def _check_record(about: dict[str, Any], path: Path, kind: str) -> dict[str, Any]:
    """Return the record of a file of parts without its own hash, which must be right."""
    if about.pop("sha256", None) != _digest({}, about) or not isinstance(about.get("parts"), dict):
        raise _altered_error(path, kind)
    return about


def _altered_error(path: Path, kind: str) -> CollateralError:
    return CollateralError(
        f"{path}: not {kind}, or its bytes were altered; delete it and run the workflow again"
    )


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
