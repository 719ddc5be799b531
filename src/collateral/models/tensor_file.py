"""Named tensors in a safetensors file that knows what it is and notices when it was altered."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.resource_errors import shortage
from collateral.models.spill import Stored, bytes_of, opened

Taken = TypeVar("Taken", Tensor, Stored)
_KEY = "collateral"  # one metadata key: safetensors writes several in random order
_DTYPES = {  # in the order in which safetensors puts tensors into a file
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_NAMES = tuple(_DTYPES.values())


def write_tensors(tensors: Mapping[str, Tensor | Stored], path: Path, about: Mapping[str, Any]) -> None:
    """Write tensors, possibly none, with a JSON record about them and a hash over both.

    The bytes are those of safetensors' own `save_file`, which would need all tensors in memory.
    """
    lying = {
        name: one if isinstance(one, Stored) else one.detach().contiguous().cpu()
        for name, one in tensors.items()
    }
    record = {**about, "sha256": _digest(lying, about)}
    header: dict[str, Any] = {"__metadata__": {_KEY: json.dumps(record, sort_keys=True)}}
    order = sorted(lying, key=lambda name: (_NAMES.index(_DTYPES[lying[name].dtype]), name))
    end = 0
    for name in order:
        begun, end = end, end + lying[name].nbytes
        spans = {"shape": list(lying[name].shape), "data_offsets": [begun, end]}
        header[name] = {"dtype": _DTYPES[lying[name].dtype], **spans}
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            file.writelines(_bytes(lying[name]))


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file and the record about them.

    Args:
        path: the file.
        kind: what it should be, for the message.

    Raises:
        CollateralError: missing, truncated, foreign or altered.
    """
    return _verified(path, kind, Stored.read)


def stored_tensors(path: Path, kind: str) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Return the same where they lie in the file, checked a part at a time, with the record about them.

    Raises:
        CollateralError: missing, truncated, foreign or altered.
    """
    return _verified(path, kind, lambda one: one)


def _verified(
    path: Path, kind: str, take: Callable[[Stored], Taken]
) -> tuple[dict[str, Taken], dict[str, Any]]:
    """Return what is taken of each tensor, whose hash must be right, with the record about them."""
    with _opened(path, kind) as (_, about):
        tensors = {name: take(one) for name, one in _lying(path).items()}
    if about.pop("sha256", None) != _digest(tensors, about):
        raise _altered(path, kind)
    return tensors, about


def _lying(path: Path) -> dict[str, Stored]:
    """Return where the tensors of a file lie, whose header safetensors has checked."""
    with Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    place = opened(path)
    dtypes = {name: dtype for dtype, name in _DTYPES.items()}
    unknown = {one["dtype"] for one in header.values()} - set(dtypes)
    if unknown:
        raise ValueError(f"elements of {', '.join(sorted(unknown))}")
    return {
        name: Stored(place, 8 + size + one["data_offsets"][0], tuple(one["shape"]), dtypes[one["dtype"]])
        for name, one in sorted(header.items())
    }


def write_parts(parts: Mapping[str, Tensor], path: Path, about: Mapping[str, Any]) -> None:
    """Write large tensors of which each has a hash of its own, so that one is read without the others."""
    contiguous = {name: part.detach().contiguous().cpu() for name, part in parts.items()}
    record = {**about, "parts": {name: _digest({name: part}, {}) for name, part in contiguous.items()}}
    record["sha256"] = _digest({}, record)
    with whole_file(path) as partial:
        save_file(contiguous, partial, metadata={_KEY: json.dumps(record, sort_keys=True)})


def read_about(path: Path, kind: str) -> dict[str, Any]:
    """Return the record about a file of parts; no part is read.

    Raises:
        CollateralError: missing, truncated, foreign or altered.
    """
    with _opened(path, kind) as (_, about):
        return _whole(about, path, kind)


def read_part(path: Path, kind: str, name: str) -> tuple[Tensor, dict[str, Any]]:
    """Return one tensor of a file of parts, and the record about all of them.

    Raises:
        CollateralError: the file is missing, truncated, foreign or altered, or has no such part.
    """
    with _opened(path, kind) as (handle, about):
        record = _whole(about, path, kind)
        part = handle.get_tensor(name)
    if record["parts"].get(name) != _digest({name: part}, {}):
        raise _altered(path, kind)
    return part, record


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield a file and the record in it; what cannot be read is an error of one line."""
    try:
        Path(path).open("rb").close()  # safetensors calls a file missing that may not be read
        with safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {}).get(_KEY, "null"))
            if not isinstance(about, dict):
                raise _altered(path, kind)
            yield handle, about
    except (OSError, ValueError, RuntimeError, MemoryError, SafetensorError) as error:
        unreadable = CollateralError(
            f"{path}: not readable as {kind} ({error}); delete it and run the workflow again"
        )
        raise shortage(error, path) or unreadable from None  # for want of memory nothing is to be deleted


def _whole(about: dict[str, Any], path: Path, kind: str) -> dict[str, Any]:
    """Return the record of a file of parts without its own hash, which must be right."""
    if about.pop("sha256", None) != _digest({}, about) or not isinstance(about.get("parts"), dict):
        raise _altered(path, kind)
    return about


def _altered(path: Path, kind: str) -> CollateralError:
    return CollateralError(
        f"{path}: not {kind}, or its bytes were altered; delete it and run the workflow again"
    )


def _digest(tensors: Mapping[str, Tensor | Stored], about: Mapping[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in _bytes(tensor):
            total.update(part)
    return total.hexdigest()


def _bytes(tensor: Tensor | Stored) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in main memory, or of one in a file a part at a time."""
    if isinstance(tensor, Stored):
        yield from tensor.blocks()
    else:
        yield bytes_of(tensor.contiguous())
