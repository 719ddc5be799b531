"""What the tidy tables hold: table → columns with dtype, meaning and unit. Torch-free.

`docs/tables.md` is written from this, and the tables that are written are held to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from collateral.analysis.tables.columns import COLUMNS, INFERRED_ROWS, MEASURED_ROWS, OVERRIDES, Column
from collateral.errors import CollateralError


@dataclass(frozen=True)
class Table:
    """One tidy table: what one row is, and its columns in order."""

    row: str
    columns: dict[str, Column]

    @property
    def schema(self) -> dict[str, Any]:
        """Return column → dtype."""
        return {name: column.dtype for name, column in self.columns.items()}


def _tables(rows: dict[str, tuple[str, str]]) -> dict[str, Table]:
    """Return name → table, from what a row is and the names of the columns in one line."""
    return {
        name: Table(row, {one: OVERRIDES.get((name, one)) or COLUMNS[one] for one in columns.split()})
        for name, (row, columns) in rows.items()
    }


MEASURED = _tables(MEASURED_ROWS)
"""What rule `gather` writes."""

INFERRED = _tables(INFERRED_ROWS)
"""What rule `infer` makes of them."""

# Here and not beside what is made of them, so that planning imports no statistics.
READ = ("abilities", "ability-items", "collapses", "drift", "editors", "efficacy", "objectives", "weights")
"""Names of the tables that others are inferred from."""

TABLES = MEASURED | INFERRED


def conform_table(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Return the table in its columns' order; one without rows gets the columns that it lacks.

    Raises:
        CollateralError: a column is missing, unknown or of another type.
    """
    schema = TABLES[name].schema
    if table.is_empty():
        return pl.DataFrame(schema=schema)
    for column, dtype in schema.items():
        if column not in table.columns:
            raise CollateralError(
                f"table {name}: no column '{column}'; a result is of an older version: delete it and run again"
            )
        if table.schema[column] != dtype:
            raise CollateralError(
                f"table {name}: column '{column}' is {table.schema[column]}, not {dtype}; a result is of another "
                "version: delete it and run again"
            )
    unknown = [column for column in table.columns if column not in schema]
    if unknown:
        raise CollateralError(
            f"table {name}: column '{unknown[0]}' is not described; describe it in columns.py"
        )
    return table.select(list(schema))


def flatten_lists(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table as CSV can hold it: the numbers of a list are one text with spaces between them."""
    nested = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    return table.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in nested)


def describe_tables(tables: Iterable[str]) -> str:
    """Return the description of some tables as Markdown."""
    parts = []
    for name in tables:
        lines = [
            f"### {name}",
            "",
            TABLES[name].row,
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{column}` | {said.dtype} | {said.unit or '–'} | {said.meaning} |"
            for column, said in TABLES[name].columns.items()
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
