"""Which rows of the tidy tables belong to a study, and who and what occurs in them."""

from collections.abc import Mapping, Sequence

import polars as pl

from collateral.errors import CollateralError

Tables = Mapping[str, pl.DataFrame]
UNEDITED = "unedited"

# Control characters and line separators break the chart library (its SVG is XML): show their pictures instead.
PICTURES = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\x7f": "␡", "\u2028": "␤", "\u2029": "␤"}


def make_legible(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Return the tables with every control character of their texts made visible."""
    return {
        name: table.with_columns(pl.col(pl.String).str.replace_many(list(PICTURES), list(PICTURES.values())))
        for name, table in tables.items()
    }


def find_studies(tables: Mapping[str, pl.DataFrame]) -> list[tuple[str, str]]:
    """Return the (model, dataset) pairs that occur in the tables, in order of appearance."""
    found: dict[tuple[str, str], None] = {}
    for table in tables.values():
        if not table.is_empty() and {"model", "dataset"} <= set(table.columns):
            pairs = table.select("model", "dataset").drop_nulls().unique(maintain_order=True)
            found.update(dict.fromkeys((str(model), str(dataset)) for model, dataset in pairs.rows()))
    return list(found)


def select_study(table: pl.DataFrame, model: str, dataset: str | None = None) -> pl.DataFrame:
    """Return the rows of one model and data set, with those that name no data set, as the unedited model's.

    Without a data set, those of all data sets of the model. A table that names no model holds for every study.
    """
    if table.is_empty() or "model" not in table.columns:
        return table
    own = pl.col("model") == model
    if dataset is not None:
        own &= pl.col("dataset").is_null() | (pl.col("dataset") == dataset)
    return table.filter(own)


def get_table(tables: Tables, name: str) -> pl.DataFrame:
    """Return a table, empty where the study has none of that name."""
    return tables.get(name, pl.DataFrame())


def no_rows_error(table: str) -> CollateralError:
    """Return the error of a figure that has nothing to plot."""
    return CollateralError(f"table '{table}' has no rows to plot; run the workflow that makes it")


def order_editors(order: Sequence[str], present: Sequence[str], only: bool = False) -> list[str]:
    """Return the editors in the study's order, then those that it does not name; `only` those present.

    With the whole order, each editor has the same colour in every figure, also where another has no rows.
    """
    names = [*order, *(name for name in present if name not in order)]
    return [name for name in names if name in present] if only else names


def find_editors(table: pl.DataFrame) -> list[str]:
    """Return the editors in order of appearance, without the unedited reference."""
    names = table.get_column("editor").drop_nulls().unique(maintain_order=True).to_list()
    return [name for name in names if name != UNEDITED]


def find_all_editors(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """Return the editors of all tables, those of the table with most of them first."""
    found = [find_editors(table) for table in tables.values() if {"editor", "model"} <= set(table.columns)]
    found.sort(key=len, reverse=True)
    return list(dict.fromkeys(name for names in found for name in names))


def find_checkpoints(table: pl.DataFrame) -> list[int]:
    """Return the numbers of edits after which an edited model was looked at, ascending."""
    edited = table.filter(pl.col("editor") != UNEDITED)
    return [int(edits) for edits in edited.get_column("edits").unique().sort().to_list()]


def select_last(points: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the last checkpoint of all."""
    edited = points.filter(pl.col("editor") != UNEDITED)
    return edited.filter(pl.col("edits") == edited.get_column("edits").max())


def select_each_last(points: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each editor's own last checkpoint."""
    edited = points.filter(pl.col("editor") != UNEDITED)
    return edited.filter(pl.col("edits") == pl.col("edits").max().over("editor"))


def select_common(points: pl.DataFrame, group: str) -> pl.DataFrame:
    """Return the rows of each editor and ability at the last checkpoint that all values of the group have."""
    groups = points[group].n_unique() if not points.is_empty() else 0
    shared = pl.col(group).n_unique().over("editor", "edits") == groups
    common = points.filter(shared)
    return common.filter(pl.col("edits") == pl.col("edits").max()) if not common.is_empty() else common
