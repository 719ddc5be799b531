"""All results of a study → its tidy tables, as Parquet and as CSV. Torch-free."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.tables import collapse
from collateral.analysis.tables import collect as tables
from collateral.analysis.tables.costs import collect_costs
from collateral.analysis.tables.schema import MEASURED, TABLES, conform_table, flatten_lists
from collateral.editing.registry import regularizer_declaration
from collateral.io.atomic import whole_file
from collateral.io.parquet import made_with, write_table

Paths = Mapping[str, Sequence[Path]]


def gather_tables(
    paths: Paths,
    suites: Mapping[str, Mapping[str, Mapping[str, Any]]],
    editors: Mapping[str, Mapping[str, Any]],
    collapsing: Mapping[str, Any],
    benchmarks: Path,
) -> dict[str, pl.DataFrame]:
    """Return name → table, for all of `MEASURED`; of kinds without a file the table is empty.

    Args:
        paths: kind of result → files, as `outputs.list_results` names them.
        suites: suite → task → its metadata.
        editors: editor → its settings.
        collapsing: `perplexity_ratio`, `one_answer`.
        benchmarks: the folder of Snakemake's benchmarks; it may be lacking.

    Raises:
        CollateralError: a file is not readable, or not of this version.
    """
    found = {
        "abilities": tables.collect_abilities(paths["abilities"], suites),
        "ability-items": tables.collect_items(paths["samples"]),
        "efficacy": _efficacy(paths),
        "edits": tables.stack_tables(paths["edits"]),
        "weights": tables.stack_tables(paths["weights"]),
        "drift": tables.stack_tables(paths["drift"]),
        "heatmaps": tables.stack_tables(paths["heatmaps"]),
        "single-weights": tables.stack_tables(paths["singles"]),
        "objectives": _where_all(tables.collect_objectives, paths, "reference", "facts"),
        "known": tables.count_known_facts(paths["known"]),
        "costs": collect_costs(paths["edits"], benchmarks),
        "libraries": tabulate_libraries(paths),
        "editors": tabulate_editors(editors),
    }
    whole = {name: conform_table(name, table) for name, table in found.items()}
    skipped = tables.collect_skipped(paths["abilities"])
    verdicts = collapse.find_collapses(whole["abilities"], whole["ability-items"], skipped, collapsing)
    whole["collapses"] = conform_table("collapses", verdicts)
    return {name: whole[name] for name in MEASURED}


def _efficacy(paths: Paths) -> pl.DataFrame:
    if not paths["efficacy"] and not paths["after_edit"]:
        return pl.DataFrame()
    if not paths["reference"]:
        return tables.stack_tables([*paths["efficacy"], *paths["after_edit"]])
    return tables.collect_efficacy(paths["efficacy"], paths["after_edit"], paths["reference"])


def _where_all(make: Callable[..., pl.DataFrame], paths: Paths, *kinds: str) -> pl.DataFrame:
    """Return a table that is made of several kinds of files; an empty one where a kind has none."""
    return make(*(paths[kind] for kind in kinds)) if all(paths[kind] for kind in kinds) else pl.DataFrame()


def tabulate_editors(editors: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Return what the editors of a study are, from their settings."""
    rows = [
        {
            "editor": name,
            "method": own["method"],
            "regularizer": own["regularizer"]["name"],
            "keep": _share_kept(own["regularizer"]),
            "batch_size": own["batch_size"],
            "editing": own["editing"],
        }
        for name, own in editors.items()
    ]
    return pl.DataFrame(rows, schema=TABLES["editors"].schema)


def _share_kept(regularizer: Mapping[str, Any]) -> Any:
    """Return the setting `keep` of a regulariser; None where it has none."""
    declared = regularizer_declaration(regularizer["name"])
    return regularizer["keep"] if "keep" in declared.annotations else None


def tabulate_libraries(paths: Paths) -> pl.DataFrame:
    """Return how many files of each kind were made with which version of each library."""
    rows = [
        {"artifact": kind, "library": library, "version": version}
        for kind, own in paths.items()
        for path in own
        if path.suffix == ".parquet"
        for library, version in made_with(path).items()
    ]
    if not rows:
        return pl.DataFrame()
    return pl.DataFrame(rows).group_by(pl.all()).agg(files=pl.len().cast(pl.Int32)).sort(pl.all())


def write_tables(found: Mapping[str, pl.DataFrame], folder: Path) -> None:
    """Write each table to `folder/{name}.parquet` and `folder/{name}.csv`."""
    for name, table in found.items():
        write_table(table, folder / f"{name}.parquet")
        with whole_file(folder / f"{name}.csv") as partial:
            flatten_lists(table).write_csv(partial)
