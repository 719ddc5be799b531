"""Parquet ↔ weight increments: with `elementtable` and `factortable`, the only files that know the format.

A file states what changed in one of two encodings, whichever is smaller: by `elements`, or, where every update was
of low rank, by the `factors` of each operation, with the masks of regularisers.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from collateral.deltas import factor_encoding as factortable
from collateral.deltas import sparse_encoding as elementtable
from collateral.deltas.file_metadata import check_head, encoding_of
from collateral.deltas.increment import (
    WIDER,
    Increment,
    Part,
    advance,
    put_exceptions,
    tensor_sha256,
    widened,
)
from collateral.deltas.operations import Operation
from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.checksum import check_seal
from collateral.io.parquet import write_sealed, written
from collateral.io.resource_errors import shortage

log = logging.getLogger(__name__)

FORMAT = "collateral-delta/2"
_KEY = "collateral"
_REMEDY = "delete it and run the workflow again: that checkpoint and the later ones are rebuilt"
Operations = Mapping[str, Sequence[Operation]]


def write_increment(
    path: Path,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    about: Mapping[str, Any],
    operations: Operations | None = None,
) -> None:
    """Write what changed between two states of some parameters, in the smaller encoding.

    Args:
        path: the parquet file.
        before: parameters at the previous checkpoint (or W_0 where `about["mode"]` is replacing).
        after: the same parameters now.
        about: `base`, `base_sha256`, `mode`, `from_edits`, `to_edits`, `editor`.
        operations: what was done to each of the parameters between, in order, where that can be told; factors are
            stored only if they give `after` bit for bit.
    """
    names = sorted(before)
    dtypes = {str(before[name].dtype).removeprefix("torch.") for name in names}
    if len(dtypes) > 1:
        raise CollateralError(
            f"{path}: the touched parameters have several dtypes ({', '.join(sorted(dtypes))}); name layers of one"
        )
    parameters = {
        name: {
            "shape": list(before[name].shape),
            "before": tensor_sha256(before[name]),
            "after": tensor_sha256(after[name]),
            "exceptions": [],
        }
        for name in names
    }
    dtype = dtypes.pop() if dtypes else "float32"
    head = {**about, "format": FORMAT, "dtype": dtype, "parameters": parameters}
    table = _factored(head, operations or {})
    with whole_file(path) as partial:
        if table is not None and operations:
            how = factortable.options(operations)
            if _is_smaller(table, how, before, after, head):
                write_sealed(table, partial, **how)
                if _other(partial, before, parameters) is None:
                    return
                log.info("%s: the factors do not give the live weights again; elements are stored", path)
        write_sealed(_listed(head, before, after), partial, **elementtable.OPTIONS)
        name = _other(partial, before, parameters)
        if name is not None:
            raise CollateralError(
                f"{path}: reading it back did not give the live weights of {name}; check memory and disk, and "
                "run again"
            )


def _factored(head: Mapping[str, Any], operations: Operations) -> pa.Table | None:
    """Return the table of operations, with the metadata; None where they do not state all that changed."""
    dtype = factortable.factors_dtype(operations)
    if dtype is None or set(operations) != set(head["parameters"]):
        return None
    parameters = {
        name: {**about, "operations": factortable.told(operations[name])}
        for name, about in head["parameters"].items()
    }
    whole = {**head, "encoding": "factors", "factors": dtype, "parameters": parameters}
    return _with_head(factortable.table_of(operations, dtype), whole)


def _listed(head: Mapping[str, Any], before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> pa.Table:
    """Return the table of changed elements, with the metadata."""
    table, exceptions = elementtable.table_of(before, after, head["dtype"])
    parameters = {
        name: {**about, "exceptions": exceptions[name]} for name, about in head["parameters"].items()
    }
    return _with_head(table, {**head, "encoding": "elements", "parameters": parameters})


def _with_head(table: pa.Table, head: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({_KEY: json.dumps(head, sort_keys=True)})


def _is_smaller(
    table: pa.Table,
    how: Mapping[str, Any],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    head: Mapping[str, Any],
) -> bool:
    """Return whether a file of factors is smaller than one of elements, which is made only where it is not clear."""
    size = _bytes(table, how)
    changed = sum(int(elementtable.changes(before[name], after[name]).sum()) for name in before)
    if 2 * size < changed:  # half a byte for place and value of an element is not enough
        return True
    return size < _bytes(_listed(head, before, after), elementtable.OPTIONS)


def _bytes(table: pa.Table, how: Mapping[str, Any]) -> int:
    stream = pa.BufferOutputStream()
    written(table, stream, **how)
    return int(stream.getvalue().size)


def _other(path: Path, before: Mapping[str, Tensor], parameters: Mapping[str, Any]) -> str | None:
    """Return the first parameter that a file does not turn into what it was made from; None where there is none."""
    one = read_outline(path)
    for name, about in parameters.items():
        total = widened(before[name])
        for _, change in read_parts(one, name):
            advance(total, before[name], change)
        put_exceptions(total, one.metadata["parameters"][name])
        if tensor_sha256(total.to(before[name].dtype)) != about["after"]:
            return name
    return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """Yield a file and its metadata, checked; a fault that is met while it is open is one line with the remedy."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            metadata = json.loads((handle.schema_arrow.metadata or {}).get(_KEY.encode(), b"null"))
            check_head(metadata, WIDER, FORMAT)
            schema = (
                factortable.schema(metadata["factors"])
                if encoding_of(metadata) == "factors"
                else elementtable.schema(metadata["dtype"])
            )
            if not handle.schema_arrow.equals(schema, check_metadata=False):
                raise ValueError("its columns are not a delta's")
            yield handle, metadata
    except IndexError as error:
        raise CollateralError(f"{path}: an element lies outside {error}; {_REMEDY}") from None
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
        parameters, table = metadata["parameters"], handle.read()
        if encoding_of(metadata) == "factors":
            operations = factortable.operations_of(table, parameters, list(parameters))
            return Increment(Path(path), metadata, {}, operations)
        rows = elementtable.Rows(table)
        elements = {name: rows.of(name, about["shape"]) for name, about in parameters.items()}
        return Increment(Path(path), metadata, elements)


def read_parts(one: Increment, name: str | None = None) -> Iterator[Part]:
    """Yield what a file says of its parameters, or of one of them, in pieces; its seal was checked with the outline.

    At most a row group of the file is held: a million elements, or the factors of one parameter.

    Raises:
        CollateralError: as `read_increment`, of the row groups that hold the parameter.
    """
    with _opened(one.path) as (handle, metadata):
        about, names = metadata["parameters"], sorted(metadata["parameters"]) if name is None else [name]
        if encoding_of(metadata) == "factors":
            for own in names:
                table = handle.read_row_groups(_groups(handle, own))
                yield own, factortable.operations_of(table, about, [own])[own]
            return
        for group in range(handle.num_row_groups) if name is None else _groups(handle, name):
            rows = elementtable.Rows(handle.read_row_group(group))
            for own in names:
                for elements in rows.pieces(own, about[own]["shape"]):
                    yield own, elements


def _groups(handle: pq.ParquetFile, name: str) -> list[int]:
    """Return the row groups that may hold a parameter."""
    found = []
    for group in range(handle.num_row_groups):
        bounds = handle.metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= name <= bounds.max:
            found.append(group)
    return found


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
