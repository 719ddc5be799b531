"""Abilities before and after editing: the unedited model beside each editor's final one."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import NAMES_WIDTH, Plot, draw_dots, join_panels
from collateral.report.charts.means import add_bars, select_all_seeds
from collateral.report.charts.rows import Tables, find_editors, no_rows_error, order_editors, select_each_last
from collateral.report.charts.style import COLUMNS
from collateral.report.figures.abilities import (
    ABILITY_KEYS,
    AT_CHANCE,
    ability_points,
    clip_perplexities,
    metric_title,
)

SHOWN = ("editor", "edits", "value", "lower", "upper", "change", "n", "exact")


def change_points(tables: Tables) -> pl.DataFrame:
    """Return the points of `ability_points` at each editor's last checkpoint, with lower and upper filled.

    Where no paired interval is known, ±1 standard error.
    """
    points = ability_points(tables)
    if points.is_empty():
        return points
    final = select_each_last(select_all_seeds(points))
    return add_bars(final)


def change_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per ability: each editor's final model, on the rule of the unedited one.

    Raises:
        CollateralError: the table has no edited rows.
    """
    points = change_points(tables)
    if points.is_empty():
        raise no_rows_error("abilities")
    present = find_editors(points)
    names, labels = order_editors(order, present), order_editors(order, present, only=True)
    panels = []
    for index, rows in enumerate(points.partition_by(ABILITY_KEYS, maintain_order=True)):
        rows, cut = clip_perplexities(rows)
        first = rows.row(0, named=True)
        values = [v for v in (*rows["value"], first["unedited"]) if v is not None and 0 < v < float("inf")]
        plot = Plot(
            name=f"change_{index}",
            rows=rows.select(name for name in SHOWN if name in rows.columns),
            title=first["ability"],
            subtitle=[AT_CHANCE if first["at_chance"] else f"{first['task']} · n = {first['n']}{cut}"],
            value_title=metric_title(first),
            value_format=".0%" if first["is_share"] else ".3~r",
            log=bool(values) and not first["is_share"] and max(values) > 30 * min(values),
            references=[
                (value, what)
                for value, what in ((first["unedited"], "unedited"), (first["chance"], "chance"))
                if value is not None
            ],
            tooltip=[
                alt.Tooltip("edits:Q"),
                alt.Tooltip("change:Q", format="+.4~g"),
                alt.Tooltip("n:Q", title="items"),
            ],
        )
        panels.append(draw_dots(plot, "editor", labels, "editor", names))
    key = "Each editor's final model. Solid rule: unedited model. Dashed rule: chance."
    return join_panels(panels, key, COLUMNS, axes=NAMES_WIDTH)


def change_caption(tables: Tables) -> str:
    """Return the caption of abilities before and after."""
    points = change_points(tables)
    shares = points.filter(pl.col("is_share") & ~pl.col("at_chance"))
    means = shares.group_by("editor", maintain_order=True).agg(
        pl.col("change").mean(), pl.col("edits").first()
    )
    ranked = means.drop_nulls("change").sort("change", "editor").to_dicts()
    finding = "No task score is measurable."
    if ranked:
        finding = f"As the mean over task scores, {ranked[0]['editor']} loses most ({_change(ranked[0])})"
        finding += f" and {ranked[-1]['editor']} least ({_change(ranked[-1])})." if len(ranked) > 1 else "."
    return (
        f"Abilities before and after {words.span(points['edits'].to_list())} edits, each editor at its last "
        f"checkpoint; n "
        f"= {words.span(points['n'].to_list())} items a task. Bars: interval of the paired difference laid "
        f"around the "
        f"unedited score where it was computed, else ±1 standard error. {finding}"
    )


def _change(row: words.Row) -> str:
    return f"{words.points(row['change'])} points after {row['edits']} edits"


FIGURES = (
    Figure(
        "before-after",
        "Abilities before and after editing",
        "abilities",
        ("abilities",),
        change_points,
        change_chart,
        change_caption,
        "the evaluation of edited checkpoints on a suite of tasks",
        uses=("comparisons",),
        rank=70,
    ),
)
