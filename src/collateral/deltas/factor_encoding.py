"""Operations ↔ the rows of a delta that is stored as factors; `file_format` puts them into a file.

One row is one vector of a factor, or a mask: `parameter`, `operation` (in order, from 0), `part`
(`left`, `right` or `mask`), `component` (of the rank, from 0; 0 for a mask), `values` (of `left`, one for each row of
the tensor as it is stored; of `right`, for each column), `bits` (of a mask: eight elements to a byte, the first in
the highest bit, each row of the tensor from a byte on).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from collateral.deltas.operations import Operation

PARTS = ("left", "right", "mask")
_ARROW = {"float32": pa.float32(), "float64": pa.float64()}
_SPARSE_MASK = 0.08  # of few elements: below, bytes are mostly zero, and zstd's slow search pays
_VALUES = "values.list.element"
_Cell = tuple[str, int, str, int]


def schema(dtype: str) -> pa.Schema:
    """Return the columns, with factors of this type."""
    values = pa.list_(pa.field("element", _ARROW[dtype]))  # Parquet's own name
    kinds = (pa.string(), pa.int32(), pa.string(), pa.int32(), values, pa.binary())
    return pa.schema(
        list(zip(("parameter", "operation", "part", "component", "values", "bits"), kinds, strict=True))
    )


def common_dtype(operations: Mapping[str, Sequence[Operation]]) -> str | None:
    """Return the one type of all factors; None where there are several, or none."""
    every = [operation for done in operations.values() for operation in done]
    dtypes = {part.dtype for operation in every for part in (operation.left, operation.right)}
    dtype = str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else ""
    return dtype if dtype in _ARROW else None


def describe_operations(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return what a delta's metadata say of a parameter's operations: each one's rank, and whether it has a mask."""
    return [{"rank": len(each.left), "mask": each.kept is not None} for each in operations]


def encode_operations(operations: Mapping[str, Sequence[Operation]], dtype: str) -> pa.Table:
    """Return the rows, by parameter, operation and part."""
    names = sorted(operations)
    cells: list[_Cell] = []
    vectors: list[Tensor] = []
    masks: list[bytes | None] = []
    for name in names:
        cells += _cells(name, describe_operations(operations[name]))
        for operation in operations[name]:
            components = [*operation.left, *operation.right]
            vectors += components
            masks += [None] * len(components)
            if operation.kept is not None:
                masks.append(operation.kept.numpy().tobytes())
    columns = [list(column) for column in zip(*cells, strict=True)] if cells else [[], [], [], []]
    lengths = [0 if mask is not None else 1 for mask in masks]
    sizes = iter(len(vector) for vector in vectors)
    ends = np.cumsum([0, *(next(sizes) if length else 0 for length in lengths)])
    flat = torch.cat(vectors).numpy() if vectors else np.empty(0, dtype)
    values = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.array(flat, _ARROW[dtype], from_pandas=False),
        mask=pa.array([mask is not None for mask in masks]),
    )
    arrays = [
        pa.array(columns[0], pa.string()),
        pa.array(columns[1], pa.int32()),
        pa.array(columns[2], pa.string()),
        pa.array(columns[3], pa.int32()),
        values,
        pa.array(masks, pa.binary()),
    ]
    return pa.Table.from_arrays(arrays, schema=schema(dtype))


def write_options(operations: Mapping[str, Sequence[Operation]]) -> dict[str, Any]:
    """Return how the rows are written: encodings, a row group for each parameter, statistics where they are short."""
    dense = True
    for performed in operations.values():
        for operation in performed:
            if operation.kept is not None:
                share = np.unpackbits(operation.kept.numpy()).mean()
                dense &= bool(_SPARSE_MASK < share < 1 - _SPARSE_MASK)
    return {
        "use_dictionary": ["parameter", "part"],
        "store_schema": False,  # Arrow's would hold all metadata a second time
        "column_encoding": {
            "operation": "DELTA_BINARY_PACKED",
            "component": "DELTA_BINARY_PACKED",
            _VALUES: "BYTE_STREAM_SPLIT",
        },
        "write_statistics": ["parameter", "operation"],
        "compression_level": None if dense else {"bits": 19},
        "groups": [len(_cells(name, describe_operations(operations[name]))) for name in sorted(operations)],
    }


def decode_operations(
    table: pa.Table, parameters: Mapping[str, Any], wanted: Sequence[str]
) -> dict[str, list[Operation]]:
    """Return the operations of some parameters, which the rows are all of.

    Args:
        table: rows in the file's order.
        parameters: what the file says of each parameter, checked.
        wanted: names of those whose rows these are.

    Raises:
        ValueError: the rows are not what the file says of them.
    """
    expected = [cell for name in sorted(wanted) for cell in _cells(name, parameters[name]["operations"])]
    if table.num_rows != len(expected):
        raise ValueError(f"it has {table.num_rows} rows of factors where it says {len(expected)}")
    cells = zip(*(table.column(name).to_pylist() for name in table.column_names[:4]), strict=True)
    for wanted_cell, cell in zip(expected, cells, strict=True):
        if wanted_cell != cell:
            raise ValueError(f"it has a row {cell} in the place of {wanted_cell}")
    rows = zip(_chunks(table.column("values")), _chunks(table.column("bits")), strict=True)
    return {
        name: [
            _read(name, rows, about, parameters[name]["shape"]) for about in parameters[name]["operations"]
        ]
        for name in sorted(wanted)
    }


def _cells(name: str, operations: Sequence[Mapping[str, Any]]) -> list[_Cell]:
    """Return (parameter, operation, part, component) of each row."""
    cells: list[_Cell] = []
    for number, operation in enumerate(operations):
        for part in PARTS[:2]:
            cells += [(name, number, part, component) for component in range(operation["rank"])]
        if operation["mask"]:
            cells.append((name, number, "mask", 0))
    return cells


def _chunks(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        yield from chunk


def _read(
    name: str, rows: Iterator[tuple[Any, Any]], about: Mapping[str, Any], shape: Sequence[int]
) -> Operation:
    height, width = shape
    left = _vectors(name, rows, about["rank"], height)
    right = _vectors(name, rows, about["rank"], width)
    if not about["mask"]:
        return Operation(left, right)
    values, bits = next(rows)
    raw = bits.as_buffer() if bits.is_valid else b""
    across = -(-width // 8)
    if values.is_valid or len(raw) != height * across:
        raise ValueError(f"a mask of {name} is not one bit for each element")
    kept = np.frombuffer(raw, np.uint8).reshape(height, across)
    return Operation(left, right, torch.from_numpy(kept.copy()))


def _vectors(name: str, rows: Iterator[tuple[Any, Any]], rank: int, length: int) -> Tensor:
    vectors = []
    for _ in range(rank):
        values, bits = next(rows)
        numbers = values.values
        if bits.is_valid or numbers is None or len(numbers) != length or numbers.null_count:
            raise ValueError(f"a factor of {name} is not one number for each of {length}")
        vectors.append(np.from_dlpack(numbers))  # Arrow's own `to_numpy` imports pandas
    return torch.from_numpy(np.stack(vectors))
