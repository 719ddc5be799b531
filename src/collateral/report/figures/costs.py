"""What each editor costs: time, peak memory and bytes on disk, by rule of the workflow."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import NAMES_WIDTH, Plot, draw_dots, join_panels
from collateral.report.charts.rows import Tables, find_editors, get_table, no_rows_error, order_editors
from collateral.report.charts.style import COLUMNS

MEASURES = {
    "seconds": ("time", "seconds", "~s"),
    "memory": ("peak memory", "MB", "~s"),
    "bytes": ("on disk", "bytes", "~s"),
}


def cost_points(tables: Tables) -> pl.DataFrame:
    """Return (measure, rule, editor, value, lower, upper, jobs, chains) of the jobs that belong to an editor.

    seconds: sum over the jobs of a chain, all its checkpoints; memory: the largest of its jobs, MB; bytes: sum of its
    deltas and states. Means over chains (seeds); lower and upper are the smallest and the largest chain.
    """
    costs = get_table(tables, "costs")
    if costs.is_empty():
        return pl.DataFrame()
    chains = (
        costs.filter(pl.col("editor").is_not_null())
        .group_by(["rule", "editor", "dataset", "seed"], maintain_order=True)
        .agg(
            seconds=_sum("seconds"),
            memory=pl.col("max_rss_mb").max(),
            bytes=_sum("bytes").cast(pl.Float64),
            jobs=pl.len(),
        )
    )
    long = chains.unpivot(
        list(MEASURES), index=["rule", "editor", "dataset", "seed", "jobs"], variable_name="measure"
    ).filter(pl.col("value") > 0)
    return long.group_by(["measure", "rule", "editor"], maintain_order=True).agg(
        value=pl.col("value").mean(),
        lower=pl.col("value").min(),
        upper=pl.col("value").max(),
        jobs=pl.col("jobs").sum(),
        chains=pl.len(),
    )


def _sum(column: str) -> pl.Expr:
    return pl.when(pl.col(column).is_not_null().any()).then(pl.col(column).sum())


def costs_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return time, peak memory and bytes of each editor, one dot per rule.

    Raises:
        CollateralError: no job of an editor was measured.
    """
    points = cost_points(tables)
    if points.is_empty():
        raise no_rows_error("costs")
    names = order_editors(order, find_editors(points), only=True)
    rules = points["rule"].unique(maintain_order=True).to_list()
    panels = []
    for index, (measure, (title, unit, shown)) in enumerate(MEASURES.items()):
        rows = points.filter(pl.col("measure") == measure)
        if rows.is_empty():
            continue
        low, high = rows["value"].to_numpy().min(), rows["value"].to_numpy().max()
        plot = Plot(
            name=f"cost_{index}",
            rows=rows.drop("measure"),
            title=title,
            value_title=unit,
            value_format=shown,
            log=bool(high > 30 * low),
            tooltip=[alt.Tooltip("jobs:Q"), alt.Tooltip("chains:Q")],
        )
        panels.append(draw_dots(plot, "editor", names, "rule", rules, apart=len(rules) > 1))
    key = "Of one chain, all its checkpoints together. Bars: smallest to largest chain."
    return join_panels(panels, key, COLUMNS, group="rule", axes=NAMES_WIDTH)


def costs_caption(tables: Tables) -> str:
    """Return the caption of the costs."""
    points = cost_points(tables)
    edit = points.filter((pl.col("measure") == "seconds") & pl.col("rule").str.starts_with("edit"))
    ranked = edit.sort("value", "editor").to_dicts()
    finding = "No edit was timed."
    if ranked:
        first, last = ranked[0], ranked[-1]
        finding = f"Editing takes {words.number(last['value'], 3)} s a chain with {last['editor']}"
        if first is not last:
            finding += (
                f" and {words.number(first['value'], 3)} s with {first['editor']}, "
                f"{words.number(last['value'] / first['value'], 2)} times less"
            )
        finding += "."
    chains = points["chains"].to_list()
    return (
        "What each editor costs, by rule of the workflow: seconds of wall time, peak memory of its largest job, "
        "bytes of "
        f"its deltas and states; n = {words.span(chains)} chains. Bars: smallest to largest chain; they say "
        f"nothing "
        f"about another machine. {finding}"
    )


FIGURES = (
    Figure(
        "costs",
        "Time, memory and disk",
        "cost",
        ("costs",),
        cost_points,
        costs_chart,
        costs_caption,
        "the benchmarks that the workflow records of its jobs",
        rank=260,
    ),
)
