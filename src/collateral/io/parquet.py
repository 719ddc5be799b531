"""Tables in parquet: page checksums, a seal over the whole file, and the libraries that made it. Torch-free."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.checksum import BLANK, KEY, REMEDY, check_seal, seal
from collateral.io.resource_errors import shortage
from collateral.io.versions import NUMERIC, versions

MADE_WITH = "made_with"  # metadata key: library → version


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all."""
    with whole_file(path) as partial:
        write_sealed(table.to_arrow(compat_level=pl.CompatLevel.oldest()), partial)


def write_sealed(table: pa.Table, path: Path, **options: Any) -> None:
    """Write an Arrow table with page checksums and a seal.

    Args:
        table: its own metadata are kept.
        path: written.
        options: as `written` has them.
    """
    written(table, path, **options)
    seal(path)


def written(table: pa.Table, sink: Any, *, groups: Sequence[int] = (), **options: Any) -> None:
    """Write an Arrow table with page checksums and room for a seal.

    Args:
        table: its own metadata are kept.
        sink: a path, or a stream of pyarrow's.
        groups: numbers of rows that get a row group each; else a group has a million rows.
        options: of pyarrow's `ParquetWriter`.
    """
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, **options
    ) as writer:
        start = 0
        for rows in groups or [table.num_rows]:
            writer.write_table(table.slice(start, rows))
            start += rows
        own = (
            {} if options.get("store_schema", True) else table.schema.metadata
        )  # else it is in Arrow's schema
        made = json.dumps(versions(NUMERIC), sort_keys=True)
        writer.add_key_value_metadata({**own, MADE_WITH: made, KEY: BLANK})


def read_table(path: Path, kind: str, columns: Mapping[str, Any] | Sequence[str] = ()) -> pl.DataFrame:
    """Return a table after checking its bytes and its columns.

    Args:
        path: the file.
        kind: what it should be, for the message.
        columns: that it must have; with their types, if a mapping.

    Raises:
        CollateralError: missing, altered, or not that kind of table.
    """
    table = pl.DataFrame(read_arrow(path, kind))
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise CollateralError(f"{path}: not {kind} (no column '{missing[0]}'); {REMEDY}")
    for name, expected in columns.items() if isinstance(columns, Mapping) else ():
        if table.schema[name] != expected:
            raise CollateralError(
                f"{path}: not {kind} (column '{name}' is {table.schema[name]}, not {expected}); {REMEDY}"
            )
    return table


def read_arrow(path: Path, kind: str) -> pa.Table:
    """Return a table as Arrow after checking its bytes.

    Raises:
        CollateralError: missing or altered.
    """
    check_seal(path, kind)
    try:  # not `pq.read_table`: it imports Arrow's data sets and file systems, 40 MiB that no table here needs
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (OSError, MemoryError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        unreadable = CollateralError(f"{path}: not readable as {kind} ({reason}); {REMEDY}")
        raise shortage(error, path) or unreadable from None  # for want of memory nothing is to be deleted


def made_with(path: Path) -> dict[str, str]:
    """Return library → version, as a table's writer found them."""
    found: dict[str, str] = json.loads((pq.read_metadata(path).metadata or {}).get(MADE_WITH.encode(), b"{}"))
    return found
