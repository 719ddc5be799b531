"""Panels of lines over the number of edits: thinned to what a chart can hold, by seed, with the intervals given."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import polars as pl

from collateral.report.charts.means import ALL_SEEDS, add_bars
from collateral.report.charts.style import COLUMNS, Panel, arrange_panels, draw_panel

SEED = "seed"
MOST = 4500  # points of one chart: what a page draws and redraws without waiting


def draw_lines(
    panels: Sequence[Panel],
    names: Sequence[str],
    edits: Sequence[int],
    present: Collection[str],
    key: str,
    group: str = "editor",
    title: str | None = None,
    columns: int = COLUMNS,
) -> alt.ConcatChart:
    """Return the panels as one figure; a click in the legend isolates one line.

    Where rows have a column `seed`, those of the seed that the chart's parameter `seed` names are drawn: at first
    those of all seeds together. Where rows have `lower` and `upper`, their bars are these in place of value ±
    standard error.

    Args:
        panels: what to draw; rows have group, edits, value, stderr.
        names: all values of the group in the study.
        edits: checkpoints of the figure.
        present: values that the legend names.
        key: one sentence that explains the marks.
        group: column that tells the lines apart.
        title: what the group is called.
        columns: panels in a row.
    """
    kept = thin_checkpoints(sum(panel.rows.height for panel in panels), edits)
    called = title or group.replace("_", " ")
    panels = [replace(panel, rows=_select_drawn(panel.rows, kept)) for panel in panels]
    drawn = [
        _adapt_layers(draw_panel(panel, group, called, names, kept, present), panel.rows) for panel in panels
    ]
    if len(kept) < len(edits):
        key += f" Drawn: {len(kept)} of {len(edits)} checkpoints; the data hold all."
    whole = arrange_panels(drawn, key, columns, group)
    if any(SEED in panel.rows.columns for panel in panels):
        given: Any = whole.params
        others = [] if given is alt.Undefined else given
        whole.params = [*others, alt.VariableParameter(name=SEED, value=ALL_SEEDS)]
    return whole


def thin_checkpoints(rows: int, edits: Sequence[int]) -> list[int]:
    """Return the checkpoints to draw of so many rows: all, or evenly some of them with the first and the last."""
    count = len(edits)
    room = max(2, math.floor(count * MOST / max(rows, 1)))
    if room >= count:
        return list(edits)
    return [edits[round(index * (count - 1) / (room - 1))] for index in range(room)]


def _select_drawn(rows: pl.DataFrame, edits: Sequence[int]) -> pl.DataFrame:
    own = rows.filter(pl.col("edits").is_in(list(edits)))
    if SEED in own.columns and own[SEED].n_unique() == 1:
        own = own.drop(SEED)  # there is nothing to choose
    if "lower" not in own.columns:
        return own
    return add_bars(own).with_columns(low=pl.col("lower"), high=pl.col("upper"))


def _adapt_layers(chart: alt.LayerChart, rows: pl.DataFrame) -> alt.LayerChart:
    """Return the panel with its bars between `lower` and `upper`, and of the rows by seed only the chosen seed's.

    The layers are changed in place: Altair's own methods copy all their data.
    """
    for layer in chart.layer:
        if layer.encoding.x is alt.Undefined:
            continue  # a rule of reference
        if "lower" in rows.columns and layer.encoding.y2 is not alt.Undefined:
            layer.encoding.y, layer.encoding.y2 = alt.Y("lower:Q"), alt.Y2("upper:Q")
        if SEED in rows.columns:
            layer.transform = [alt.FilterTransform(filter=f"datum.{SEED} == {SEED}")]
    return chart
