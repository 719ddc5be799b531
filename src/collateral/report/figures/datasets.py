"""One model over several sets of facts: abilities against edits by data set, and by the form of the question."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    find_studies,
    get_table,
    no_rows_error,
    order_editors,
    select_common,
    select_study,
)
from collateral.report.figures.abilities import ABILITY_KEYS, RULES, ability_points, build_ability_panel

MOST_PANELS = 36  # of one figure: editors by abilities


def dataset_points(tables: Tables) -> pl.DataFrame:
    """Return the points of `ability_points` of every data set, for editors that edited facts of two or more.

    Means over seeds.
    """
    pairs = find_studies({"abilities": get_table(tables, "abilities")})
    if len(pairs) < 2:
        return pl.DataFrame()
    parts = [
        ability_points({name: select_study(table, *pair) for name, table in tables.items()})
        .filter(pl.col("seed") == "all")
        .with_columns(dataset=pl.lit(pair[1]))
        for pair in pairs
    ]
    points = pl.concat([part for part in parts if not part.is_empty()], how="diagonal_relaxed")
    several = pl.col("dataset").n_unique().over("editor") > 1
    return points.filter((pl.col("editor") != UNEDITED) & several).drop("seed")


def datasets_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per editor and ability over the number of edits, one line per data set.

    Raises:
        CollateralError: no editor edited facts of two data sets.
    """
    points = dataset_points(tables)
    if points.is_empty():
        raise no_rows_error("abilities")
    place = {name: index for index, name in enumerate(order_editors(order, find_editors(points)))}
    ordered = points.with_columns(place=pl.col("editor").replace_strict(place)).sort(
        "place", maintain_order=True
    )
    keys = ["editor", *ABILITY_KEYS]
    panels = [
        build_ability_panel(
            f"dataset_{index}", rows, "dataset", f"{rows['editor'][0]} · ", bool(points["at_chance"].any())
        )
        for index, rows in enumerate(ordered.partition_by(keys, maintain_order=True)[:MOST_PANELS])
    ]
    names = points["dataset"].unique(maintain_order=True).to_list()
    key = f"{RULES} Bars: {'paired interval' if 'lower' in points.columns else '±1 standard error'}."
    return draw_lines(panels, names, find_checkpoints(points), names, key, group="dataset", title="data set")


def datasets_caption(tables: Tables) -> str:
    """Return the caption of the abilities by data set."""
    points = dataset_points(tables)
    names = points["dataset"].unique(maintain_order=True).to_list()
    common = select_common(points.filter(pl.col("is_share") & ~pl.col("at_chance")), "dataset")
    rows = (
        common.group_by("dataset", "edits", maintain_order=True)
        .agg(pl.col("change").mean())
        .sort("change")
        .to_dicts()
    )
    finding = "No checkpoint is common to all data sets."
    if rows:
        changes = [f"{words.points(row['change'])} points with {row['dataset']}" for row in rows]
        finding = (
            f"At {words.span([row['edits'] for row in rows])} edits, task scores change by "
            f"{words.join(changes)}, "
            "as the mean over editors and abilities."
        )
    shown = points.select("editor", *ABILITY_KEYS).unique().height
    cut = (
        f" The first {MOST_PANELS} of {shown} panels are drawn; the data hold all."
        if shown > MOST_PANELS
        else ""
    )
    return (
        f"Abilities against the number of edits by data set of the edits ({words.join(names)}), for "
        f"{words.count(len(find_editors(points)), 'editor')} that edited several; n = "
        f"{words.span(points['n'].to_list())} "
        f"items a task. {finding}{cut}"
    )


FIGURES = (
    Figure(
        "datasets",
        "Abilities by data set of the edits",
        "abilities",
        ("abilities",),
        dataset_points,
        datasets_chart,
        datasets_caption,
        "an editor in the study that edits facts of two data sets, with abilities evaluated",
        uses=("comparisons",),
        across=True,
        rank=80,
    ),
)
