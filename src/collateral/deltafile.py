"""Parquet ↔ weight increments. The only file that knows the format.

One row is one changed element: `parameter` (dictionary), `row`, `col` (as the tensor is stored), `value`, one width
up, see `increments`. The few elements whose difference does not fit are listed in the metadata with their bits
before and after.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from collateral.deltaheads import check_head
from collateral.errors import CollateralError
from collateral.files import whole_file
from collateral.increments import WIDER, Increment, rebuild, tensor_sha256
from collateral.sealed import check_seal
from collateral.shortages import shortage
from collateral.tablefile import write_sealed

FORMAT = "collateral-delta/2"
_KEY = "collateral"
_REMEDY = "delete it and run the workflow again: that checkpoint and the later ones are rebuilt"
_ARROW = {torch.float64: pa.float64(), torch.float32: pa.float32()}


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
            f"{path}: the touched parameters have several dtypes ({', '.join(sorted(dtypes))}); name layers of one"
        )
    dtype = dtypes.pop() if dtypes else "float32"
    wider = WIDER[dtype]
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
                raise CollateralError(
                    f"{path}: reading it back did not give the live weights of {name}; check memory and disk, and "
                    "run again"
                )


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
    write_sealed(
        table.replace_schema_metadata({_KEY: json.dumps(metadata, sort_keys=True)}),
        path,
        use_dictionary=["parameter", "row"],  # rows ascend: the dictionary's codes become runs
        column_encoding={"col": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
    )


def _schema(wider: torch.dtype) -> pa.Schema:
    parameter = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [("parameter", parameter), ("row", pa.int32()), ("col", pa.int32()), ("value", _ARROW[wider])]
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """Yield a file and its metadata, checked; a fault that is met while it is open is one line with the remedy."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            metadata = json.loads((handle.schema_arrow.metadata or {}).get(_KEY.encode(), b"null"))
            check_head(metadata, WIDER, FORMAT)
            if not handle.schema_arrow.equals(_schema(WIDER[metadata["dtype"]]), check_metadata=False):
                raise ValueError("its columns are not a delta's")
            yield handle, metadata
    except (OSError, ValueError, OverflowError, RecursionError, MemoryError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        unreadable = CollateralError(f"{path}: not readable as a delta ({reason}); {_REMEDY}")
        raise shortage(error, path) or unreadable from None  # for want of memory nothing is to be deleted


def read_outline(path: Path) -> Increment:
    """Return one checkpoint's increment without its elements: what the file says of itself.

    Raises:
        CollateralError: missing, empty, truncated, or of another format; the message has the remedy.
    """
    check_seal(path, "a delta")
    with _opened(path) as (_, metadata):
        return Increment(Path(path), metadata, {})


def read_increment(path: Path) -> Increment:
    """Return one checkpoint's increment after every check that needs no other file.

    Raises:
        CollateralError: missing, empty, truncated, flipped, or of another format; the message has the remedy.
    """
    check_seal(path, "a delta")
    with _opened(path) as (handle, metadata):
        rows = _Rows(handle.read())
    elements = {name: rows.of(name, about["shape"], path) for name, about in metadata["parameters"].items()}
    return Increment(Path(path), metadata, elements)


def read_elements(one: Increment, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (flat indices, values) of one parameter, a row group of the file (a million elements) at a time.

    Raises:
        CollateralError: as `read_increment`, of the row groups that hold the parameter.
    """
    with _opened(one.path) as (handle, metadata):
        for group in range(handle.num_row_groups):
            bounds = handle.metadata.row_group(group).column(0).statistics
            if bounds is None or not bounds.has_min_max or bounds.min <= name <= bounds.max:
                rows = _Rows(handle.read_row_group(group))
                yield rows.of(name, metadata["parameters"][name]["shape"], one.path)


class _Rows:
    """The columns of a table of elements, sorted by parameter."""

    def __init__(self, table: pa.Table):
        if any(column.null_count for column in table.columns):
            raise ValueError("it has empty cells")
        parameter = table.column("parameter").combine_chunks()
        if isinstance(parameter, pa.ChunkedArray):  # no rows at all
            parameter = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
        self._names = parameter.dictionary.to_pylist()
        self._code = parameter.indices.to_numpy(zero_copy_only=False)
        self._columns = [table.column(name).to_numpy() for name in ("row", "col", "value")]

    def of(self, name: str, shape: Sequence[int], path: Path) -> tuple[Tensor, Tensor]:
        """Return (flat indices, values) of one parameter."""
        mine = slice(0, 0)
        if name in self._names:
            code = self._names.index(name)
            mine = slice(*map(int, np.searchsorted(self._code, [code, code + 1])))
        row, col, value = (column[mine] for column in self._columns)
        height, width = int(np.prod(shape[:-1])), shape[-1]
        if len(row) and (row.max() >= height or col.max() >= width or row.min() < 0):
            raise CollateralError(f"{path}: an element lies outside {name} {shape}; {_REMEDY}")
        index = row.astype(np.int64)
        index *= width
        index += col
        return torch.from_numpy(index), torch.from_numpy(value.copy())


def read_chain(paths: Sequence[Path], base_sha256: str, *, outlines: bool = False) -> list[Increment]:
    """Return the increments of a chain of files, all made from the model with this identity.

    Args:
        paths: the files.
        base_sha256: identity of the model.
        outlines: leave the elements in the files.

    Raises:
        CollateralError: a file is damaged, missing, or belongs to another model.
    """
    chain = [read_outline(path) if outlines else read_increment(path) for path in paths]
    for one in chain:
        if one.metadata["base_sha256"] != base_sha256:
            raise CollateralError(
                f"{one.path}: made from another base model (sha256 {one.metadata['base_sha256'][:12]}…, here "
                f"{base_sha256[:12]}…); delete {one.path.parent.parent} and run again"
            )
    return chain
