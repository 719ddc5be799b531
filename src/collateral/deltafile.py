"""Parquet ↔ weight increments. The only file that knows the format.

One row is one changed element: `parameter` (dictionary), `row`, `col` (as the tensor is stored), `value`.
Values are one width up (float64 for float32 weights, float32 for half precision), so that the difference of
two weights is exact and W_0 + sum of increments gives the live weights bit for bit, in any order. The few
elements whose difference does not fit are listed in the metadata with their bits before and after.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Shaped
from torch import Tensor

from collateral.errors import CollateralError
from collateral.files import whole_file

FORMAT = "collateral-delta/1"
_KEY = "collateral"
_WIDER = {"float32": torch.float64, "bfloat16": torch.float32, "float16": torch.float32}
_ARROW = {torch.float64: pa.float64(), torch.float32: pa.float32()}


@dataclass(frozen=True)
class Increment:
    """One checkpoint's file, read and verified against itself.

    Attributes:
        path: where it was read.
        metadata: everything but the rows: `base`, `base_sha256`, `dtype`, `mode` (additive: on top of the previous
            checkpoint; replacing: against W_0), `from_edits`, `to_edits`, `editor` and, per touched
            parameter, `shape`, `before`, `after` (sha256 of the tensor's bytes) and `exceptions`.
        elements: per parameter, (flat index in storage order, value).
    """

    path: Path
    metadata: dict[str, Any]
    elements: dict[str, tuple[Tensor, Tensor]]


def tensor_sha256(tensor: Shaped[Tensor, "..."]) -> str:
    """Return the sha256 of a tensor's bytes in storage order."""
    raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()


def write_increment(
    path: Path, before: Mapping[str, Tensor], after: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Write what changed between two states of some parameters.

    Args:
        path: the parquet file.
        before: parameters at the previous checkpoint (or W_0 where `about["mode"]` is replacing).
        after: the same parameters now.
        about: `base`, `base_sha256`, `mode`, `from_edits`, `to_edits`, `editor`.
    """
    parameters: dict[str, Any] = {}
    columns: dict[str, list[npt.NDArray[Any]]] = {"row": [], "col": [], "value": []}
    codes: list[npt.NDArray[np.int32]] = []
    names = sorted(before)
    dtypes = {str(before[name].dtype).removeprefix("torch.") for name in names}
    if len(dtypes) > 1:
        raise CollateralError(
            f"{path}: the touched parameters have several dtypes: {', '.join(sorted(dtypes))}"
        )
    dtype = dtypes.pop() if dtypes else "float32"
    wider = _WIDER[dtype]
    for code, name in enumerate(names):
        index, value, exceptions = _difference(before[name], after[name], wider)
        width = before[name].shape[-1]
        columns["row"].append((index // width).astype(np.int32))
        columns["col"].append((index % width).astype(np.int32))
        columns["value"].append(value)
        codes.append(np.full(len(index), code, dtype=np.int32))
        parameters[name] = {
            "shape": list(before[name].shape),
            "before": tensor_sha256(before[name]),
            "after": tensor_sha256(after[name]),
            "exceptions": exceptions,
        }
    metadata = {**about, "format": FORMAT, "dtype": dtype, "parameters": parameters}
    with whole_file(path) as partial:
        _write_table(partial, names, codes, columns, wider, metadata)
        replay = rebuild(before, [read_increment(partial)], check_base=False)
        for name in names:
            if tensor_sha256(replay[name]) != parameters[name]["after"]:
                raise CollateralError(f"{path}: reading it back did not give the live weights of {name}")


def _difference(
    before: Tensor, after: Tensor, wider: torch.dtype
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], list[dict[str, Any]]]:
    """Return (flat indices, values, exceptions) of the elements whose bits differ."""
    old, new = before.detach().cpu().flatten(), after.detach().cpu().flatten()
    bits = {4: torch.int32, 2: torch.int16}[old.element_size()]
    changed = (old.view(bits) != new.view(bits)).nonzero()[:, 0]
    old, new = old[changed].to(wider), new[changed].to(wider)
    value = new - old
    # exact in both directions, finite, and no signed zero, which a sum cannot restore
    fits = (old + value == new) & (new - value == old) & torch.isfinite(value) & (new != 0)
    fits |= (new == 0) & ~torch.signbit(new) & (old + value == new)
    exceptions = [
        {"index": int(changed[i]), "before": float(old[i]).hex(), "after": float(new[i]).hex()}
        for i in (~fits).nonzero()[:, 0].tolist()
    ]
    return changed[fits].numpy(), value[fits].numpy(), exceptions


def _write_table(
    path: Path,
    names: Sequence[str],
    codes: Sequence[npt.NDArray[np.int32]],
    columns: Mapping[str, Sequence[npt.NDArray[Any]]],
    wider: torch.dtype,
    metadata: Mapping[str, Any],
) -> None:
    def joined(parts: Sequence[npt.NDArray[Any]], kind: pa.DataType) -> pa.Array:
        whole = np.concatenate(parts) if parts else np.empty(0)
        return pa.array(whole, type=kind, from_pandas=False)

    parameter = pa.DictionaryArray.from_arrays(joined(codes, pa.int32()), pa.array(names, pa.string()))
    kinds = {"row": pa.int32(), "col": pa.int32(), "value": _ARROW[wider]}
    table = pa.table(
        {"parameter": parameter, **{name: joined(columns[name], kind) for name, kind in kinds.items()}}
    )
    text = json.dumps({**metadata, "sha256": _digest(metadata)}, sort_keys=True)
    pq.write_table(
        table.replace_schema_metadata({_KEY: text}),
        path,
        compression="zstd",
        use_dictionary=["parameter", "row"],  # rows ascend: the dictionary's codes become runs
        column_encoding={"col": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
        write_page_checksum=True,
    )


def _schema(wider: torch.dtype) -> pa.Schema:
    parameter = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [("parameter", parameter), ("row", pa.int32()), ("col", pa.int32()), ("value", _ARROW[wider])]
    )


def _digest(metadata: Mapping[str, Any]) -> str:
    """Return a hash of the metadata: page checksums do not cover them."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def read_increment(path: Path) -> Increment:
    """Return one checkpoint's increment after every check that needs no other file.

    Raises:
        CollateralError: missing, empty, truncated, flipped, or of another format; the message has the remedy.
    """
    remedy = "delete it and run the workflow again: that checkpoint and the later ones are rebuilt"
    try:
        with Path(path).open("rb") as raw:
            if raw.read(4) != b"PAR1":
                raise ValueError("it does not begin as a parquet file")
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            metadata = json.loads((handle.schema_arrow.metadata or {}).get(_KEY.encode(), b"null"))
            if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            if metadata.pop("sha256", None) != _digest(metadata):
                raise ValueError("its metadata were altered")
            table = handle.read()
        if not table.schema.equals(_schema(_WIDER[metadata["dtype"]]), check_metadata=False):
            raise ValueError("its columns are not a delta's")
    except FileNotFoundError:
        raise CollateralError(f"{path}: this checkpoint's delta is missing; run the workflow again") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CollateralError(f"{path}: not readable as a delta ({reason}); {remedy}") from None
    parameter = table.column("parameter").combine_chunks()
    if isinstance(parameter, pa.ChunkedArray):  # no rows at all
        parameter = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
    names = parameter.dictionary.to_pylist()
    code = parameter.indices.to_numpy(zero_copy_only=False)
    elements: dict[str, tuple[Tensor, Tensor]] = {}
    row, col, value = (table.column(name).to_numpy() for name in ("row", "col", "value"))
    for name, about in metadata["parameters"].items():
        mine = slice(0, 0)
        if name in names:
            bounds = np.searchsorted(code, [names.index(name), names.index(name) + 1])
            mine = slice(int(bounds[0]), int(bounds[1]))
        height, width = int(np.prod(about["shape"][:-1])), about["shape"][-1]
        if len(row[mine]) and (row[mine].max() >= height or col[mine].max() >= width or row[mine].min() < 0):
            raise CollateralError(f"{path}: an element lies outside {name} {about['shape']}; {remedy}")
        index = row[mine].astype(np.int64) * width + col[mine]
        elements[name] = (torch.from_numpy(index), torch.from_numpy(value[mine].copy()))
    return Increment(Path(path), metadata, elements)


def read_chain(paths: Sequence[Path], base_sha256: str) -> list[Increment]:
    """Return the increments of a chain of files, all made from the model with this identity.

    Raises:
        CollateralError: a file is damaged, missing, or belongs to another model.
    """
    chain = [read_increment(path) for path in paths]
    for one in chain:
        if one.metadata["base_sha256"] != base_sha256:
            raise CollateralError(
                f"{one.path}: made from another base model (sha256 {one.metadata['base_sha256'][:12]}…, here "
                f"{base_sha256[:12]}…); delete {one.path.parent.parent} and run again"
            )
    return chain


def rebuild(
    base: Mapping[str, Tensor], increments: Sequence[Increment], *, check_base: bool = True
) -> dict[str, Tensor]:
    """Return W_0 + sum of increments for every touched parameter, cast once, verified by hash.

    The order of the increments does not matter. A replacing increment makes the earlier ones void.

    Args:
        base: W_0 of at least the touched parameters, as stored.
        increments: the chain, from the first checkpoint to the wanted one.
        check_base: verify that the chain starts at W_0 and has no gap.

    Raises:
        CollateralError: a gap in the chain, another base model, or a result with another hash.
    """
    chain = sorted(increments, key=lambda one: int(one.metadata["to_edits"]))
    if check_base:
        _check_chain(base, chain)
    start = max((i for i, one in enumerate(chain) if one.metadata["mode"] == "replacing"), default=0)
    chain = chain[start:]
    alive = {id(one) for one in chain}
    live: dict[str, Tensor] = {}
    for name in sorted({name for one in chain for name in one.metadata["parameters"]}):
        total = base[name].detach().cpu().flatten().to(_WIDER[str(base[name].dtype).removeprefix("torch.")])
        for one in increments:
            if id(one) in alive and name in one.elements:
                index, value = one.elements[name]
                total[index] += value
        _apply_exceptions(total, name, chain)
        live[name] = total.to(base[name].dtype).reshape(base[name].shape)
        last = next(one for one in reversed(chain) if name in one.metadata["parameters"])
        if tensor_sha256(live[name]) != last.metadata["parameters"][name]["after"]:
            raise CollateralError(
                f"{last.path}: the rebuilt {name} has another sha256 than the file says; its chain does not belong "
                f"to this base model or was altered: delete the folder {last.path.parent.parent} and run again"
            )
    return live


def _apply_exceptions(total: Tensor, name: str, chain: Sequence[Increment]) -> None:
    """Replay, in order, the elements that some increment could not state as a difference."""
    last: dict[int, tuple[int, float]] = {}
    for number, one in enumerate(chain):
        for exception in one.metadata["parameters"].get(name, {}).get("exceptions", ()):
            last[exception["index"]] = (number, float.fromhex(exception["after"]))
    for index, (number, value) in last.items():
        total[index] = value
        for one in chain[number + 1 :]:
            if name in one.elements:
                positions, values = one.elements[name]
                found = int(torch.searchsorted(positions, index))
                if found < len(positions) and int(positions[found]) == index:
                    total[index] += values[found]


def _check_chain(base: Mapping[str, Tensor], chain: Sequence[Increment]) -> None:
    edits = 0
    expected: dict[str, str] = {}
    for one in chain:
        start = 0 if one.metadata["mode"] == "replacing" else edits
        if int(one.metadata["from_edits"]) != start:
            raise CollateralError(
                f"{one.path}: it continues from {one.metadata['from_edits']} edits, but the chain before it ends at "
                f"{edits}; a checkpoint is missing: run the workflow again"
            )
        for name, about in one.metadata["parameters"].items():
            if name not in base or list(base[name].shape) != about["shape"]:
                raise CollateralError(
                    f"{one.path}: made for another model: it has no {name} {about['shape']}"
                )
            if name not in expected or one.metadata["mode"] == "replacing":
                expected[name] = tensor_sha256(base[name])
            if about["before"] != expected[name]:
                raise CollateralError(
                    f"{one.path}: made on other weights of {name} (sha256 {about['before'][:12]}…, here "
                    f"{expected[name][:12]}…); delete {one.path.parent.parent} and run again"
                )
            expected[name] = about["after"]
        edits = int(one.metadata["to_edits"])
