"""Parquet ↔ weight increments: with `sparse_encoding` and `factor_encoding`, the only files that know the format.

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

from collateral.deltas import factor_encoding, sparse_encoding
from collateral.deltas.file_metadata import check_head, encoding_of
from collateral.deltas.increment import (
    WIDER,
    Increment,
    Part,
    add_change,
    put_exceptions,
    tensor_sha256,
    widen,
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
        operations: what was done to each of the parameters between, in order, where that is known; factors are
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
    table = _encode_factors(head, operations or {})
    with whole_file(path) as partial:
        if table is not None and operations:
            how = factor_encoding.write_options(operations)
            if _is_smaller(table, how, before, after, head):
                write_sealed(table, partial, **how)
                if _find_difference(partial, before, parameters) is None:
                    return
                log.info("%s: the factors do not give the live weights again; elements are stored", path)
        write_sealed(_encode_elements(head, before, after), partial, **sparse_encoding.OPTIONS)
        name = _find_difference(partial, before, parameters)
        if name is not None:
            raise CollateralError(
                f"{path}: reading it back did not give the live weights of {name}; check memory and disk, and "
                "run again"
            )


def _encode_factors(head: Mapping[str, Any], operations: Operations) -> pa.Table | None:
    """Return the table of operations, with the metadata; None where they do not state all that changed."""
    dtype = factor_encoding.common_dtype(operations)
    if dtype is None or set(operations) != set(head["parameters"]):
        return None
    parameters = {
        name: {**about, "operations": factor_encoding.describe_operations(operations[name])}
        for name, about in head["parameters"].items()
    }
    whole = {**head, "encoding": "factors", "factors": dtype, "parameters": parameters}
    return _attach_head(factor_encoding.encode_operations(operations, dtype), whole)


def _encode_elements(
    head: Mapping[str, Any], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> pa.Table:
    """Return the table of changed elements, with the metadata."""
    table, exceptions = sparse_encoding.encode_changes(before, after, head["dtype"])
    parameters = {
        name: {**about, "exceptions": exceptions[name]} for name, about in head["parameters"].items()
    }
    return _attach_head(table, {**head, "encoding": "elements", "parameters": parameters})


def _attach_head(table: pa.Table, head: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({_KEY: json.dumps(head, sort_keys=True)})


def _is_smaller(
    table: pa.Table,
    how: Mapping[str, Any],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    head: Mapping[str, Any],
) -> bool:
    """Return whether a file of factors is smaller than one of elements, which is made only where it is not clear."""
    size = _encoded_size(table, how)
    changed = sum(int(sparse_encoding.find_changes(before[name], after[name]).sum()) for name in before)
    if 2 * size < changed:  # half a byte for place and value of an element is not enough
        return True
    return size < _encoded_size(_encode_elements(head, before, after), sparse_encoding.OPTIONS)


def _encoded_size(table: pa.Table, how: Mapping[str, Any]) -> int:
    stream = pa.BufferOutputStream()
    written(table, stream, **how)
    return int(stream.getvalue().size)


def _find_difference(path: Path, before: Mapping[str, Tensor], parameters: Mapping[str, Any]) -> str | None:
    """Return the first parameter that a file does not turn into what it was made from; None where there is none."""
    outline = read_outline(path)
    for name, about in parameters.items():
        total = widen(before[name])
        for _, change in read_parts(outline, name):
            add_change(total, before[name], change)
        put_exceptions(total, outline.metadata["parameters"][name])
        if tensor_sha256(total.to(before[name].dtype)) != about["after"]:
            return name
    return None


@contextmanager
def _open_delta(path: Path) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """Yield a file and its metadata, checked; a fault that is met while it is open is one line with the remedy."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as handle:
            metadata = json.loads((handle.schema_arrow.metadata or {}).get(_KEY.encode(), b"null"))
            check_head(metadata, WIDER, FORMAT)
            schema = (
                factor_encoding.schema(metadata["factors"])
                if encoding_of(metadata) == "factors"
                else sparse_encoding.schema(metadata["dtype"])
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
    with _open_delta(path) as (_, metadata):
        return Increment(Path(path), metadata, {})


def read_increment(path: Path) -> Increment:
    """Return one checkpoint's increment after every check that needs no other file.

    Raises:
        CollateralError: missing, empty, truncated, flipped, or of another format; the message has the remedy.
    """
    check_seal(path, "a delta")
    with _open_delta(path) as (handle, metadata):
        parameters, table = metadata["parameters"], handle.read()
        if encoding_of(metadata) == "factors":
            operations = factor_encoding.decode_operations(table, parameters, list(parameters))
            return Increment(Path(path), metadata, {}, operations)
        rows = sparse_encoding.Rows(table)
        elements = {name: rows.of(name, about["shape"]) for name, about in parameters.items()}
        return Increment(Path(path), metadata, elements)


def read_parts(increment: Increment, name: str | None = None) -> Iterator[Part]:
    """Yield what a file says of its parameters, or of one of them, in pieces; its seal was checked with the outline.

    At most a row group of the file is held: a million elements, or the factors of one parameter.

    Raises:
        CollateralError: as `read_increment`, of the row groups that hold the parameter.
    """
    with _open_delta(increment.path) as (handle, metadata):
        about, names = metadata["parameters"], sorted(metadata["parameters"]) if name is None else [name]
        if encoding_of(metadata) == "factors":
            for parameter in names:
                table = handle.read_row_groups(_find_row_groups(handle, parameter))
                yield parameter, factor_encoding.decode_operations(table, about, [parameter])[parameter]
            return
        for group in range(handle.num_row_groups) if name is None else _find_row_groups(handle, name):
            rows = sparse_encoding.Rows(handle.read_row_group(group))
            for parameter in names:
                for elements in rows.pieces(parameter, about[parameter]["shape"]):
                    yield parameter, elements


def _find_row_groups(handle: pq.ParquetFile, name: str) -> list[int]:
    """Return the row groups that may hold a parameter."""
    groups = []
    for group in range(handle.num_row_groups):
        bounds = handle.metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= name <= bounds.max:
            groups.append(group)
    return groups


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
    for increment in chain:
        if increment.metadata["base_sha256"] != base_sha256:
            base = increment.metadata["base_sha256"]
            raise CollateralError(
                f"{increment.path}: made from another base model (sha256 {base[:12]}…, here "
                f"{base_sha256[:12]}…); delete {increment.path.parent.parent} and run again"
            )
    return chain
