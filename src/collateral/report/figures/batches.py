"""Batches: abilities against the size of one (RECT, Figures 4, 10), and batches in sequence (Figures 11 to 16)."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.marks import Plot, draw_curves, join_panels
from collateral.report.charts.means import add_bars, select_all_seeds
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
)
from collateral.report.charts.style import COLUMNS
from collateral.report.figures.abilities import (
    ABILITY_KEYS,
    RULES,
    ability_points,
    build_ability_panel,
    metric_title,
)

SAME = ("method", "regularizer", "keep", "editing")


def _batched(tables: Tables) -> pl.DataFrame:
    """Return the points of `ability_points` of sequential editors, with `family` and `batch_size`."""
    table, points = get_table(tables, "editors"), select_all_seeds(ability_points(tables))
    if table.is_empty() or points.is_empty():
        return pl.DataFrame()
    bare = pl.col("regularizer").is_null() | pl.col("regularizer").is_in(["none", ""])
    families = table.filter(pl.col("editing") != "single").with_columns(
        family=pl.when(bare)
        .then(pl.col("method"))
        .otherwise(pl.format("{}, {} {}%", "method", "regularizer", pl.col("keep").fill_null(100)))
    )
    return points.filter(pl.col("editor") != UNEDITED).join(
        families.select("editor", "family", "batch_size"), on="editor", how="inner", maintain_order="left"
    )


def batch_points(tables: Tables) -> pl.DataFrame:
    """Return the points of one operation each: as many edits as a batch has, for families with two sizes or more."""
    points = _batched(tables)
    if points.is_empty():
        return points
    once = points.filter(pl.col("edits") == pl.col("batch_size"))
    several = once.filter(pl.col("batch_size").n_unique().over("family") > 1)
    return add_bars(several).sort("family", "batch_size", maintain_order=True)


def batch_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per ability over the size of the batch, one line per method.

    Raises:
        CollateralError: no two editors differ in the size of their batch alone.
    """
    points = batch_points(tables)
    if points.is_empty():
        raise no_rows_error("editors")
    sizes = points["batch_size"].unique().sort().to_list()
    x = alt.X(
        "batch_size:Q",
        title="edits in one batch",
        scale=alt.Scale(type="log", domain=[sizes[0], sizes[-1]], padding=14, nice=False),
        axis=alt.Axis(values=sizes, format="d", grid=False, labelOverlap=True),
    )
    methods = points["family"].unique(maintain_order=True).to_list()
    panels = []
    for index, rows in enumerate(points.partition_by(ABILITY_KEYS, maintain_order=True)):
        first = rows.row(0, named=True)
        plot = Plot(
            name=f"batch_{index}",
            rows=rows.select("family", "editor", "batch_size", "value", "lower", "upper", "n"),
            title=first["ability"],
            subtitle=[f"{first['task']} · n = {first['n']}"],
            value_title=metric_title(first),
            value_format=".0%" if first["is_share"] else ".3~s",
            references=[] if first["unedited"] is None else [(first["unedited"], "unedited")],
            tooltip=[
                alt.Tooltip("batch_size:Q", title="batch"),
                alt.Tooltip("editor:N"),
                alt.Tooltip("n:Q", title="items"),
            ],
        )
        panels.append(draw_curves(plot, x, "family", methods, "method"))
    return join_panels(panels, "One operation each. Solid rule: unedited model.", COLUMNS, group="family")


def batch_caption(tables: Tables) -> str:
    """Return the caption of abilities by size of batch."""
    points = batch_points(tables)
    sizes = points["batch_size"].unique().sort().to_list()
    told = []
    scores = points.filter(pl.col("is_share") & ~pl.col("at_chance"))
    for (family,), rows in scores.partition_by(["family"], as_dict=True, maintain_order=True).items():
        means = rows.group_by("batch_size").agg(pl.col("change").mean()).sort("batch_size").to_dicts()
        told.append(
            f"{family} {words.points(means[0]['change'])} points with a batch of {means[0]['batch_size']}, "
            f"{words.points(means[-1]['change'])} with {means[-1]['batch_size']}"
        )
    return (
        f"Abilities after one operation on a batch of {words.join([str(size) for size in sizes])} edits; n = "
        f"{words.span(points['n'].to_list())} items. Bars: paired interval laid around the unedited score, "
        f"else ±1 "
        f"standard error. Mean change of task scores: {'; '.join(told) if told else 'not measurable'}."
    )


def sequence_points(tables: Tables) -> pl.DataFrame:
    """Return the points of families with two sizes of batch or more, each with several checkpoints, and `batch`."""
    points = _batched(tables)
    if points.is_empty():
        return points
    long = points.filter(pl.col("edits").n_unique().over("editor") > 1)
    several = long.filter(pl.col("batch_size").n_unique().over("family") > 1)
    return several.with_columns(batch=pl.format("batches of {}", "batch_size")).sort(
        "family", "batch_size", "edits", maintain_order=True
    )


def sequence_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per method and ability over the number of edits, one line per size of batch.

    Raises:
        CollateralError: no two editors of several checkpoints differ in the size of their batch alone.
    """
    points = sequence_points(tables)
    if points.is_empty():
        raise no_rows_error("editors")
    panels = [
        build_ability_panel(
            f"sequence_{index}", rows, "batch", f"{rows['family'][0]} · ", bool(points["at_chance"].any())
        )
        for index, rows in enumerate(points.partition_by(["family", *ABILITY_KEYS], maintain_order=True))
    ]
    names = points.sort("batch_size", maintain_order=True)["batch"].unique(maintain_order=True).to_list()
    return draw_lines(panels, names, find_checkpoints(points), names, RULES, group="batch")


def sequence_caption(tables: Tables) -> str:
    """Return the caption of batches in sequence."""
    points = sequence_points(tables)
    told = []
    scores = points.filter(pl.col("is_share") & ~pl.col("at_chance"))
    for (family,), rows in scores.partition_by(["family"], as_dict=True, maintain_order=True).items():
        final = rows.filter(pl.col("edits") == pl.col("edits").max().over("batch_size"))
        means = (
            final.group_by("batch_size", "edits").agg(pl.col("change").mean()).sort("batch_size").to_dicts()
        )
        changes = [f"{words.points(row['change'])} after {row['edits']}" for row in means]
        told.append(
            f"{family} {words.join(changes)} edits in batches "
            f"of {words.join([str(row['batch_size']) for row in means])}"
        )
    return (
        f"Abilities against the number of edits made in batches, {words.after(find_checkpoints(points))}, for "
        f"{words.count(len(find_editors(points)), 'editor')}; n = {words.span(points['n'].to_list())} items. "
        f"Bars: paired "
        f"interval laid around the unedited score, else ±1 standard error. Mean change of task scores, in points: "
        f"{'; '.join(told) if told else 'not measurable'}."
    )


FIGURES = (
    Figure(
        "batch-sizes",
        "Abilities against the size of a batch",
        "abilities",
        ("editors", "abilities"),
        batch_points,
        batch_chart,
        batch_caption,
        "editors that differ in `batch_size` alone, each with a checkpoint after its first batch",
        uses=("comparisons",),
        rank=160,
    ),
    Figure(
        "batch-sequences",
        "Batches in sequence",
        "abilities",
        ("editors", "abilities"),
        sequence_points,
        sequence_chart,
        sequence_caption,
        "editors that differ in `batch_size` alone, each with several checkpoints",
        uses=("comparisons",),
        rank=170,
    ),
)
