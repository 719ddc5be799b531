"""Marks other than lines over edits: dots beside names, curves over a setting, cells of a grid."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from collateral.report.charts.style import (
    COLOURS,
    DASHES,
    INK,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    SELECTION,
    SHAPES,
    arrange_panels,
    inline_values,
)

ROW_HEIGHT = 21
NAMES_WIDTH = 170  # pixels for the names beside the dots


@dataclass(frozen=True)
class Plot:
    """One panel: its rows and its words.

    Attributes:
        name: of the view; a legend's selection needs it.
        rows: value, lower and upper (null: no bar), the columns that the marks are placed and told apart by, and
            those of the tooltip. Where there is a column `censored`, its true values are arrows that point on.
        title: above the panel.
        subtitle: below the title.
        value_title: what the value is called.
        value_format: d3's.
        log: whether the value's scale is logarithmic.
        domain: of the value, where it must not follow the data.
        references: value of each rule of reference, and what it is.
        tooltip: beside name and value.
    """

    name: str
    rows: pl.DataFrame
    title: str
    subtitle: Sequence[str] = ()
    value_title: str = ""
    value_format: str = ".3~g"
    log: bool = False
    domain: tuple[float, float] | None = None
    references: Sequence[tuple[float, str]] = ()
    tooltip: Sequence[alt.Tooltip] = field(default_factory=tuple)


def draw_dots(
    plot: Plot, label: str, labels: Sequence[str], group: str, groups: Sequence[str], apart: bool = False
) -> alt.LayerChart:
    """Return one row a label with its value as a dot, and its interval as a bar.

    Args:
        plot: what to draw.
        label: column with the names beside the rows.
        labels: their order from above.
        group: column that colours and shapes tell apart; without a legend where it is the label itself.
        groups: all values of the group in the study.
        apart: whether a label has several groups, which then stand below each other.
    """
    axis = alt.Axis(format=plot.value_format, tickCount=4, labelOverlap=True)
    x = alt.X("value:Q", title=plot.value_title, scale=_scale(plot), axis=axis)
    names = alt.Axis(grid=True, ticks=False, domain=False, labelLimit=NAMES_WIDTH - 10)
    base = alt.Chart(inline_values(plot.rows)).encode(
        y=alt.Y(f"{label}:N", sort=list(labels), title=None, axis=names),
        color=encode_group(alt.Color, group, groups, COLOURS, legend=group != label),
        opacity=fade_unselected(),
        tooltip=[alt.Tooltip(f"{label}:N"), *_tooltip(plot), *plot.tooltip],
    )
    if apart:
        base = base.encode(yOffset=alt.YOffset(f"{group}:N", sort=list(groups)))
    layers = [_reference(value, what, x=x) for value, what in plot.references]
    layers.append(base.mark_rule(strokeWidth=1.6).encode(x=alt.X("lower:Q"), x2="upper:Q"))
    shape = encode_group(alt.Shape, group, groups, SHAPES, legend=group != label)
    points = base.mark_point(size=62, filled=True).encode(x=x, shape=shape)
    if "censored" in plot.rows.columns:
        arrows = base.transform_filter("datum.censored")
        layers.append(arrows.mark_point(size=95, shape="triangle-right", filled=False).encode(x=x))
        points = points.transform_filter("!datum.censored")
    layers.append(points.properties(name=plot.name))
    height = max(ROW_HEIGHT, 9 * len(groups) + 8) if apart else ROW_HEIGHT
    return _join_layers(plot, layers, height * len(labels))


def draw_curves(
    plot: Plot, x: alt.X, group: str, groups: Sequence[str], title: str, present: Sequence[str] | None = None
) -> alt.LayerChart:
    """Return one line a group over a setting of the editors, with its points and their intervals as bars.

    Args:
        plot: what to draw.
        x: the setting, with its scale and axis.
        group: column that tells the lines apart.
        groups: all values of the group in the figure.
        title: what the group is called.
        present: the values that the legend names, all of them by default.
    """
    y = alt.Y(
        "value:Q",
        title=plot.value_title or None,
        scale=_scale(plot),
        axis=alt.Axis(format=plot.value_format, tickCount=5),
    )
    base = alt.Chart(inline_values(plot.rows)).encode(
        x=x,
        color=encode_group(alt.Color, group, groups, COLOURS, title, present=present),
        opacity=fade_unselected(),
        detail=[f"{group}:N"],
        tooltip=[alt.Tooltip(f"{group}:N", title=title), *_tooltip(plot), *plot.tooltip],
    )
    dash = encode_group(alt.StrokeDash, group, groups, DASHES, title, present=present)
    shape = encode_group(alt.Shape, group, groups, SHAPES, title, present=present)
    layers = [_reference(value, what, y=y) for value, what in plot.references]
    layers.append(base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("lower:Q"), y2="upper:Q"))
    layers.append(base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=dash))
    layers.append(base.mark_point(size=52, filled=True).encode(y=y, shape=shape).properties(name=plot.name))
    return _join_layers(plot, layers, PANEL_HEIGHT)


def join_panels(
    charts: Sequence[alt.LayerChart], key: str, columns: int, group: str = "editor", axes: int = 74
) -> alt.ConcatChart:
    """Return the panels as one figure whose legend isolates a group; there are no edits to choose from along x."""
    whole = arrange_panels(charts, key, columns, group, axes)
    given: Any = whole.params
    if given is not alt.Undefined:
        whole.params = [param for param in given if param.name == SELECTION]
    return whole


def draw_cells(
    plot: Plot,
    x: alt.X,
    y: alt.Y,
    colour: alt.Color,
    size: tuple[int, int],
) -> alt.LayerChart:
    """Return a grid of cells, each with its column `words` written in white where its column `dark` says so."""
    base = alt.Chart(inline_values(plot.rows)).encode(x=x, y=y, tooltip=list(plot.tooltip))
    boxes = base.mark_rect(stroke=INK, strokeOpacity=0.25, strokeWidth=0.6).encode(color=colour)
    room = size[0] / max(1, plot.rows[_field(x)].n_unique()) - 2
    ink = alt.when("datum.dark").then(alt.value("#ffffff")).otherwise(alt.value("#1a1a1a"))
    words = base.mark_text(fontSize=11, limit=room).encode(text="words:N", color=ink)
    title = alt.TitleParams(plot.title, subtitle=list(plot.subtitle))
    return alt.LayerChart(layer=[boxes, words], width=size[0], height=size[1], title=title)


def _field(channel: alt.X) -> str:
    return str(channel.shorthand).rpartition(":")[0]


def _join_layers(plot: Plot, layers: Sequence[alt.Chart], height: int) -> alt.LayerChart:
    title = alt.TitleParams(plot.title, subtitle=list(plot.subtitle))
    return alt.LayerChart(layer=list(layers), width=PANEL_WIDTH, height=height, title=title)


def _scale(plot: Plot) -> alt.Scale:
    if plot.log:
        return alt.Scale(type="log", nice=False, padding=10)
    if plot.domain is not None:
        return alt.Scale(domain=list(plot.domain), nice=False)
    return alt.Scale(zero=False, nice=True, padding=6)


def fade_unselected() -> Any:
    """Return the opacity that fades what the legend's selection leaves out."""
    # `arrange_panels` declares the selection, once for all panels.
    return alt.when(alt.selection_point(name=SELECTION)).then(alt.value(1)).otherwise(alt.value(0.1))


def encode_group(
    channel: Any,
    group: str,
    groups: Sequence[str],
    marks: Sequence[Any],
    title: str = "",
    legend: bool = True,
    present: Sequence[str] | None = None,
) -> Any:
    """Return the encoding of a group by colours, dashes or shapes, which repeat where there are more groups.

    Args:
        channel: `alt.Color`, `alt.StrokeDash` or `alt.Shape`.
        group: the column.
        groups: all its values, so that each looks the same in every figure.
        marks: the colours, dashes or shapes.
        title: of the legend.
        legend: whether there is one.
        present: the values that the legend names, all of them by default.
    """
    scale = alt.Scale(domain=list(groups), range=[marks[place % len(marks)] for place in range(len(groups))])
    if not legend:
        return channel(f"{group}:N", scale=scale, legend=None)
    shown = [name for name in groups if present is None or name in present]
    return channel(
        f"{group}:N", scale=scale, title=title or group.replace("_", " "), legend=alt.Legend(values=shown)
    )


def _tooltip(plot: Plot) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("value:Q", title=plot.value_title or "value", format=".4~g"),
        alt.Tooltip("lower:Q", format=".4~g"),
        alt.Tooltip("upper:Q", format=".4~g"),
    ]


def _reference(value: float, what: str, x: alt.X | None = None, y: alt.Y | None = None) -> alt.Chart:
    mark = alt.Chart(alt.InlineData(values=[{"value": value, "what": what}]))
    rule: alt.Chart = mark.mark_rule(
        color=INK, opacity=0.6, strokeWidth=1.2, strokeDash=[1, 0] if what == "unedited" else [5, 3]
    ).encode(
        tooltip=[alt.Tooltip("what:N", title="rule"), alt.Tooltip("value:Q", format=".4~g")],
        **({"x": x} if x is not None else {"y": y}),
    )
    return rule
