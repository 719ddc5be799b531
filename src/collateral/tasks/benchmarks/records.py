"""Raw files of public benchmarks → records, strictly: what is malformed is named by file, record and field."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError

Record = dict[str, Any]


def broken(path: Path, number: int, field: str, found: object, allowed: str) -> CollateralError:
    """Return the error for a malformed record; `number` counts from 1 (lines, where the file has lines)."""
    shown = repr(found)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return CollateralError(
        f"{path}: record {number}, {field} is {shown}; {allowed}: delete the file and fetch it anew, or mend it"
    )


def text_of(path: Path) -> str:
    """Return the file's text with unified line ends, without a byte order mark.

    Raises:
        CollateralError: the file is missing or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise CollateralError(f"{path}: file not found; fetch it or put it into the mirror") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CollateralError(f"{path}: not readable as UTF-8 text ({error}); fetch the file anew") from None
    return text.replace("\r\n", "\n")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, split at line feeds only: some texts hold other separators."""
    lines = text_of(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield number and object of each line that is not blank.

    Raises:
        CollateralError: a line is not a JSON object.
    """
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            yield number, _object(path, number, line)


def json_list(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield number and object of each entry of a JSON list.

    Raises:
        CollateralError: the file is not a JSON list of objects.
    """
    try:
        entries = json.loads(text_of(path))
    except ValueError as error:
        raise CollateralError(f"{path}: not JSON ({error}); fetch the file anew") from None
    if not isinstance(entries, list):
        raise CollateralError(f"{path}: holds {type(entries).__name__}, not a JSON list; fetch the file anew")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise broken(path, number, "record", entry, "it must be a JSON object")
        yield number, entry


def table_rows(path: Path, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row of a table that quotes its cells where it must.

    Raises:
        CollateralError: a row has another number of cells than `width`.
    """
    reader = csv.reader(io.StringIO(text_of(path), newline=""), delimiter=separator)
    for number, cells in enumerate(reader, 1):
        if len(cells) != width:
            raise broken(path, number, "the number of cells", len(cells), f"it must be {width}")
        yield number, cells


def parquet_rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, Record]]:
    """Yield number and the named fields of each row of a parquet file.

    Raises:
        CollateralError: not a parquet file, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise CollateralError(f"{path}: not readable as parquet ({reason}); fetch the file anew") from None
    missing = [name for name in fields if name not in table.column_names]
    if missing:
        raise CollateralError(
            f"{path}: has no column '{missing[0]}' (columns: {', '.join(table.column_names)}); "
            "fetch the file of the revision that the catalogue names"
        )
    yield from enumerate(table.select(list(fields)).to_pylist(), 1)


def string(path: Path, number: int, record: Record, field: str) -> str:
    """Return a field that must be text with more than white space in it."""
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise broken(path, number, field, value, "it must be text")
    return value


def strings(path: Path, number: int, record: Record, field: str, at_least: int = 1) -> list[str]:
    """Return a field that must be a list of texts."""
    value = record.get(field)
    if (
        not isinstance(value, list)
        or len(value) < at_least
        or not all(isinstance(text, str) and text.strip() for text in value)
    ):
        raise broken(path, number, field, value, f"it must be a list of at least {at_least} texts")
    return list(value)


def position(path: Path, number: int, field: str, found: object, allowed: Sequence[object]) -> int:
    """Return the position of a label among those allowed."""
    # 1 == True in Python: the type has to agree too
    for place, label in enumerate(allowed):
        if type(found) is type(label) and found == label:
            return place
    raise broken(path, number, field, found, f"it must be one of {', '.join(map(repr, allowed))}")


def _object(path: Path, number: int, line: str) -> Record:
    try:
        value = json.loads(line)
    except ValueError:
        raise broken(path, number, "the line", line, "it must be JSON") from None
    if not isinstance(value, dict):
        raise broken(path, number, "the line", value, "it must be a JSON object")
    return value
