"""A results folder → its tables and what it was made from; and in what two of them differ as a whole. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.tables.collect import KEY
from collateral.analysis.tables.schema import conform_table
from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json
from collateral.io.parquet import read_table

READ = ("abilities", "ability-items", "efficacy", "weights")
"""The tables that two folders are compared by."""

PRESENCE = {"part": pl.String, "name": pl.String, "only_in": pl.String}
SETTINGS = {"part": pl.String, "name": pl.String, "a": pl.String, "b": pl.String}


@dataclass(frozen=True)
class Results:
    """One results folder.

    Attributes:
        folder: as it was named.
        tables: those of `READ`.
        run: settings, versions, machine, as far as they were written.
    """

    folder: Path
    tables: Mapping[str, pl.DataFrame]
    run: Mapping[str, Any]


def read_results(folder: Path) -> Results:
    """Return what a results folder holds; the project's folder stands for its `results`.

    Raises:
        CollateralError: it is no results folder, or a table is not readable or of another version.
    """
    own = folder / "results" if (folder / "results/tables").is_dir() else folder
    lacking = [name for name in READ if not (own / f"tables/{name}.parquet").is_file()]
    if lacking:
        raise CollateralError(
            f"{folder}: not a results folder (no tables/{lacking[0]}.parquet); name the `results` of a study, or its "
            "results/partial"
        )
    found = {name: read_table(own / f"tables/{name}.parquet", f"the table {name}", ()) for name in READ}
    record = own / "report/run.json"
    run = read_sealed_json(record, "a report's record") if record.is_file() else {}
    if not isinstance(run, dict):
        raise CollateralError(f"{record}: not a record of a run; delete it and run `make report`")
    return Results(folder, {name: conform_table(name, table) for name, table in found.items()}, run)


def compare_presence(a: Results, b: Results) -> pl.DataFrame:
    """Return what only one of the folders has: models, data sets, seeds, editors, checkpoints, tasks."""
    rows = []
    parts = {name: [name] for name in ("model", "dataset", "seed", "editor")}
    told = (("abilities", parts | {"task": ["suite", "task"]}), ("efficacy", parts))
    seen: set[tuple[str, str, str]] = set()
    for table, own in told:
        for part, columns in own.items():
            for name, where in _only(a.tables[table], b.tables[table], columns):
                seen.add((part, name, where))
    gone = {(part, name) for part, name, _ in seen}
    for table, _ in told:
        for name, where in _only(a.tables[table], b.tables[table], list(KEY)):
            model, dataset, seed, editor, _ = name.split(" · ")
            parents = {("model", model), ("dataset", dataset), ("seed", seed), ("editor", editor)}
            if not parents & gone:  # what lacks whole is said once
                seen.add(("checkpoint", name, where))
    rows = sorted(seen)
    return pl.DataFrame(rows, schema=PRESENCE, orient="row")


def _only(a: pl.DataFrame, b: pl.DataFrame, columns: list[str]) -> list[tuple[str, str]]:
    """Return the names that only one table has, and which: A or B."""
    names = [
        {
            " · ".join("–" if one is None else str(one) for one in row)
            for row in own.select(columns).unique().rows()
        }
        for own in (a, b)
    ]
    return [(name, "A") for name in names[0] - names[1]] + [(name, "B") for name in names[1] - names[0]]


def compare_settings(a: Results, b: Results) -> pl.DataFrame:
    """Return settings, versions and machine that differ: key and both values; null where one has none.

    A folder without a record of its run has nothing to compare: the table is empty.
    """
    rows = []
    for part in ("settings", "versions", "machine"):
        if part not in a.run or part not in b.run:
            continue
        left, right = _flatten(a.run[part]), _flatten(b.run[part])
        for name in sorted(left.keys() | right.keys()):
            if left.get(name) != right.get(name):
                rows.append((part, name, left.get(name), right.get(name)))
    return pl.DataFrame(rows, schema=SETTINGS, orient="row")


def _flatten(value: Any, name: str = "") -> dict[str, str]:
    """Return dotted key → value as text; lists stay whole."""
    if not isinstance(value, Mapping):
        return {name: str(value)}
    found: dict[str, str] = {}
    for key, own in value.items():
        found |= _flatten(own, f"{name}.{key}" if name else str(key))
    return found
