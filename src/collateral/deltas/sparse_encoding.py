"""Changed elements ↔ the rows of a delta; `file_format` puts them into a file.

One row is one changed element: `parameter` (dictionary), `row`, `col` (as the tensor is stored), `value`, one width
up, see `increment`; sorted. The few elements whose difference does not fit are listed in the metadata with their
bits before and after.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from collateral.deltas.increment import WIDER, Elements

OPTIONS: dict[str, Any] = {
    "use_dictionary": ["parameter", "row"],  # rows ascend: the dictionary's codes become runs
    "column_encoding": {"col": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
}
_PIECE = 2**14  # elements
_ARROW = {torch.float64: pa.float64(), torch.float32: pa.float32()}


def schema(dtype: str) -> pa.Schema:
    """Return the columns, for weights of this type."""
    parameter = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [("parameter", parameter), ("row", pa.int32()), ("col", pa.int32()), ("value", _ARROW[WIDER[dtype]])]
    )


def encode_changes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], dtype: str
) -> tuple[pa.Table, dict[str, list[dict[str, Any]]]]:
    """Return the rows of what differs between two states, and each parameter's exceptions."""
    names, wider = sorted(before), WIDER[dtype]
    columns: dict[str, list[npt.NDArray[Any]]] = {"parameter": [], "row": [], "col": [], "value": []}
    exceptions = {}
    for code, name in enumerate(names):
        index, value, exceptions[name] = _difference(before[name], after[name], wider)
        width = before[name].shape[-1]
        columns["parameter"].append(np.full(len(index), code, dtype=np.int32))
        columns["row"].append((index // width).astype(np.int32))
        columns["col"].append((index % width).astype(np.int32))
        columns["value"].append(value)
    kinds = dict(zip(columns, (pa.int32(), pa.int32(), pa.int32(), _ARROW[wider]), strict=True))
    joined = {
        name: pa.array(np.concatenate(parts) if parts else np.empty(0), type=kinds[name], from_pandas=False)
        for name, parts in columns.items()
    }
    joined["parameter"] = pa.DictionaryArray.from_arrays(joined["parameter"], pa.array(names, pa.string()))
    return pa.table(joined), exceptions


def _difference(
    before: Tensor, after: Tensor, wider: torch.dtype
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], list[dict[str, Any]]]:
    """Return (flat indices, values, exceptions) of the elements whose bits differ."""
    changed = find_changes(before, after).flatten().nonzero()[:, 0]
    old, new = (state.detach().cpu().flatten()[changed].to(wider) for state in (before, after))
    value = new - old
    # exact in both directions, finite, and no signed zero, which a sum cannot restore
    fits = (old + value == new) & (new - value == old) & torch.isfinite(value) & (new != 0)
    fits |= (new == 0) & ~torch.signbit(new) & (old + value == new)
    exceptions = [
        {"index": int(changed[i]), "before": float(old[i]).hex(), "after": float(new[i]).hex()}
        for i in (~fits).nonzero()[:, 0].tolist()
    ]
    return changed[fits].numpy(), value[fits].numpy(), exceptions


def find_changes(before: Tensor, after: Tensor) -> Tensor:
    """Return which elements' bits differ."""
    bits = {4: torch.int32, 2: torch.int16}[before.element_size()]
    old, new = (state.detach().cpu().contiguous().view(bits) for state in (before, after))
    return old != new


class Rows:
    """The columns of a table of elements, sorted by parameter."""

    def __init__(self, table: pa.Table):
        if any(column.null_count for column in table.columns):
            raise ValueError("it has empty cells")
        parameter = table.column("parameter").combine_chunks()
        if isinstance(parameter, pa.ChunkedArray):  # no rows at all
            parameter = pa.DictionaryArray.from_arrays(pa.nulls(0, pa.int32()), pa.nulls(0, pa.string()))
        self._names = parameter.dictionary.to_pylist()
        # Arrow's own `to_numpy` imports pandas, which takes a job's time and memory for nothing
        self._code = np.from_dlpack(parameter.indices)
        self._columns: list[npt.NDArray[Any]] = [
            np.from_dlpack(table.column(name).combine_chunks()) for name in ("row", "col", "value")
        ]

    def of(self, name: str, shape: Sequence[int]) -> Elements:
        """Return (flat indices, values) of one parameter; a slice of indices where none is left out.

        Raises:
            IndexError: an element lies outside the parameter, which the error names.
        """
        return self._piece(self._rows(name), name, shape)

    def pieces(self, name: str, shape: Sequence[int]) -> Iterator[Elements]:
        """Yield the same in pieces that stay in a core's cache, and of which more have none left out.

        Raises:
            IndexError: an element lies outside the parameter, which the error names.
        """
        mine = self._rows(name)
        for start in range(mine.start, mine.stop, _PIECE):
            yield self._piece(slice(start, min(start + _PIECE, mine.stop)), name, shape)

    def _rows(self, name: str) -> slice:
        if name not in self._names:
            return slice(0, 0)
        code = self._names.index(name)
        ends = np.array([code, code + 1], self._code.dtype)  # of another type, all codes would be converted
        return slice(*map(int, np.searchsorted(self._code, ends)))

    def _piece(self, mine: slice, name: str, shape: Sequence[int]) -> Elements:
        row, col, value = (column[mine] for column in self._columns)
        height, width = int(np.prod(shape[:-1])), shape[-1]
        if len(row) and (row.max() >= height or col.max() >= width or min(row.min(), col.min()) < 0):
            raise IndexError(f"{name} {shape}")
        values = torch.from_numpy(value.copy())
        if len(row):
            first, last = (int(row[end]) * width + int(col[end]) for end in (0, -1))
            if last - first == len(row) - 1:  # they ascend, so that none is missing
                return slice(first, last + 1), values
        index = row.astype(np.int64)
        index *= width
        index += col
        return torch.from_numpy(index), values
