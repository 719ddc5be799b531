"""The marks and the style that all figures share: lines over edits with error bars, on reference rules."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

# Okabe and Ito (2008), which people with any colour vision tell apart; without black and yellow, so that every
# line keeps its contrast on light and on dark paper. Dash and point shape repeat the same distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
DASHES = ((1, 0), (7, 3), (2, 2), (9, 3, 2, 3), (4, 4))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
INK = "currentColor"  # follows the page's text colour, light, dark or printed; black in a file of its own
WARNING = "#C2571A"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SELECTION = "isolate"  # editors clicked in a legend
BRUSH = "brush"  # what is dragged over the edits in any panel …
SPAN = (
    "edits_span"  # … and what it says: [from, to] in edits, or null. The page gives both to all of its charts
)
SEED = "seed"  # of a figure with rows per seed: "all" (the mean over seeds) or one of them
PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 262, 172, 3


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: its rows (group, edits, value, …), its words and its reference rules.

    The bars are `low` to `high` where the rows have these columns, else `value` ± `stderr`. Rows with a column
    `seed` are shown for one seed at a time, "all" to begin with: give `arrange_panels` the `seeds`.
    """

    name: str
    rows: pl.DataFrame
    title: str
    subtitle: Sequence[str] = ()
    y_title: str | None = None
    y_format: str = ".3~g"
    domain: tuple[float, float] | None = None
    reference: float | None = None
    chance: float | None = None
    warn: bool = False
    tooltip: Sequence[alt.Tooltip] = field(default_factory=tuple)


def inline_values(frame: pl.DataFrame) -> alt.InlineData:
    """Return the rows as inline data; what is not finite becomes null, which JSON can hold."""
    finite = frame.with_columns(
        pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64).round_sig_figs(6))
    )
    # Altair copies lists deeply whenever it puts charts together, but not tuples.
    return alt.InlineData(values=tuple(finite.to_dicts()))


def _cycle(values: Sequence[Any], count: int) -> list[Any]:
    return [values[index % len(values)] for index in range(count)]


def _is_wide(edits: Sequence[int]) -> bool:
    return edits[-1] > 30 * edits[0]


def _side_by_side(
    rows: pl.DataFrame, group: str, groups: Sequence[str], edits: Sequence[int]
) -> pl.DataFrame:
    """Return the rows with `x`: edits, moved by about 3 pixels a group, so that no bar hides another."""
    place = pl.col(group).replace_strict(dict(zip(groups, range(len(groups)), strict=True)))
    # A single checkpoint, in the middle of two units, has the whole panel to itself.
    step = min(3.0, 24 / len(groups)) if len(edits) > 1 else 2 * min(18.0, 200 / len(groups))
    share = (place - (len(groups) - 1) / 2) * step / PANEL_WIDTH
    if _is_wide(edits):
        return rows.with_columns(x=pl.col("edits") * (share * math.log(edits[-1] / edits[0])).exp())
    return rows.with_columns(x=pl.col("edits") + share * max(edits[-1] - edits[0], 1))


def _x(edits: Sequence[int]) -> alt.X:
    scale = alt.Scale(
        type="log" if _is_wide(edits) else "linear",
        domain=[edits[0], edits[-1]] if len(edits) > 1 else [edits[0] - 1, edits[0] + 1],
        padding=12,
        nice=False,
    )
    axis = alt.Axis(values=list(edits), format="d", grid=False, labelOverlap=True)
    return alt.X("x:Q", title="edits", scale=scale, axis=axis)


def _y_scale(panel: Panel) -> alt.Scale:
    if panel.domain is not None:
        return alt.Scale(domain=list(panel.domain), nice=False)
    values = [v for v in panel.rows["value"].to_list() if v is not None and math.isfinite(v)]
    values += [v for v in (panel.reference, panel.chance) if v is not None and math.isfinite(v)]
    # A collapsed model's perplexity may be 10⁶ times that of the others: only logarithms show both.
    steep = len(values) > 1 and min(values) > 0 and max(values) > 30 * min(values)
    return alt.Scale(type="log") if steep else alt.Scale(zero=False, nice=True, padding=6)


def _y(panel: Panel) -> alt.Y:
    axis = alt.Axis(format=panel.y_format, tickCount=5)
    return alt.Y("value:Q", title=panel.y_title, scale=_y_scale(panel), axis=axis)


def _rule(value: float, title: str, y: alt.Y, dash: Sequence[int], opacity: float) -> alt.Chart:
    mark = alt.Chart(alt.InlineData(values=[{"value": value, "what": title}]))
    rule: alt.Chart = mark.mark_rule(
        color=INK, strokeDash=list(dash), opacity=opacity, strokeWidth=1.2
    ).encode(y=y, tooltip=[alt.Tooltip("what:N", title="rule"), alt.Tooltip("value:Q", format=".4~g")])
    return rule


def _add_bars(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with `low` and `high`: as they are, else one standard error about the value."""
    if {"low", "high"} <= set(rows.columns):
        return rows
    error = pl.col("stderr").fill_null(0.0)
    return rows.with_columns(low=pl.col("value") - error, high=pl.col("value") + error)


def _tooltip(panel: Panel, rows: pl.DataFrame, group: str, legend_title: str) -> list[alt.Tooltip]:
    """Return what a point says of itself: who, checkpoint, value, its bar, what the panel adds, seeds."""
    kinds = [
        alt.Tooltip(f"{group}:N", title=legend_title),
        alt.Tooltip("edits:Q", title="checkpoint (edits)"),
        alt.Tooltip("value:Q", format=".5~g"),
        alt.Tooltip("low:Q", title="bar from", format=".4~g"),
        alt.Tooltip("high:Q", title="bar to", format=".4~g"),
        *panel.tooltip,
    ]
    told = {tooltip.shorthand for tooltip in kinds}
    own = {"n": "n", "seeds": "seeds", SEED: "seed"}
    return kinds + [
        alt.Tooltip(f"{name}:N", title=title)
        for name, title in own.items()
        if name in rows.columns and not {f"{name}:N", f"{name}:Q"} & told
    ]


def draw_panel(
    panel: Panel,
    group: str,
    legend_title: str,
    groups: Sequence[str],
    edits: Sequence[int],
    present: Collection[str],
) -> alt.LayerChart:
    """Return lines over edits with points and ±1 standard error, on the panel's reference rules.

    Args:
        panel: what to draw.
        group: column that tells the lines apart.
        legend_title: what the column is called.
        groups: all values of the column in the study: each keeps its colour, dash and shape in every figure.
        edits: checkpoints of the figure.
        present: the values that the figure's legend names.
    """
    y = _y(panel)
    named: dict[str, Any] = {
        "title": legend_title,
        "legend": alt.Legend(values=[name for name in groups if name in present]),
    }

    def scale(values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=list(groups), range=_cycle(values, len(groups)))

    # `arrange_panels` declares the parameters, once for all panels.
    isolated = alt.selection_point(name=SELECTION)
    within = f"!{SPAN} || (datum.edits >= {SPAN}[0] && datum.edits <= {SPAN}[1])"
    rows = _add_bars(_side_by_side(panel.rows, group, groups, edits))
    lines = alt.Chart(inline_values(rows)).encode(
        x=_x(edits),
        color=alt.Color(f"{group}:N", scale=scale(COLOURS), **named),
        opacity=alt.when(isolated & within).then(alt.value(1)).otherwise(alt.value(0.1)),
        tooltip=_tooltip(panel, rows, group, legend_title),
    )
    if SEED in rows.columns:
        lines = lines.transform_filter(f"datum.{SEED} == {SEED}")
    dash = alt.StrokeDash(f"{group}:N", scale=scale(DASHES), **named)
    shape = alt.Shape(f"{group}:N", scale=scale(SHAPES), **named)
    whole = alt.when(isolated).then(alt.value(1)).otherwise(alt.value(0.1))  # a line has no single checkpoint
    layers: list[alt.Chart] = []
    if panel.chance is not None:
        layers.append(_rule(panel.chance, "chance", y, (1, 3), 0.55))
    if panel.reference is not None:
        layers.append(_rule(panel.reference, "unedited", y, (1, 0), 0.6))
    # The first layer with a legend carries the selections: Vega-Lite takes from it whether the legend can be clicked.
    bars = lines.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q"), y2="high:Q")
    layers.append(bars.properties(name=panel.name))
    layers.append(lines.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=dash, opacity=whole))
    layers.append(lines.mark_point(size=46, filled=True).encode(y=y, shape=shape))
    title = alt.TitleParams(
        panel.title, subtitle=list(panel.subtitle), subtitleColor=WARNING if panel.warn else INK
    )
    return alt.LayerChart(layer=layers, width=PANEL_WIDTH, height=PANEL_HEIGHT, title=title)


def arrange_panels(
    charts: Sequence[alt.LayerChart] | Sequence[alt.Chart],
    key: str,
    columns: int,
    group: str = "editor",
    axes: int = 74,
    seeds: bool = False,
) -> alt.ConcatChart:
    """Return the panels side by side in the house style, with one sentence that explains the marks.

    A click in the legend isolates one `group` in all panels; dragging over the edits of any panel dims the points
    of other checkpoints. `axes` is the room in pixels that a panel takes beside its plot; the page reads the whole
    width of a panel from the chart's `usermeta`. `seeds`: the rows are per seed.
    """
    words: dict[str, Any] = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11}
    # At once: each of Altair's own `configure_…` copies the whole chart.
    whole = alt.ConcatChart(
        concat=list(charts),
        columns=columns,
        spacing=26,
        background="white",
        usermeta={"panel": max(chart.width for chart in charts) + axes},
        title=alt.TitleParams(key, anchor="start", fontSize=12, fontWeight="normal", offset=14, limit=900),
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(y="independent", x="independent")),
        config=alt.Config(
            font=FONT,
            view=alt.ViewConfig(stroke=None),
            axis=alt.AxisConfig(
                **words,
                titleFontWeight="normal",
                domainColor=INK,
                domainOpacity=0.4,
                tickColor=INK,
                tickOpacity=0.4,
                gridColor=INK,
                gridOpacity=0.1,
            ),
            legend=alt.LegendConfig(
                **words, titleFontWeight="normal", orient="top", symbolStrokeWidth=0, labelLimit=220
            ),
            title=alt.TitleConfig(
                color=INK,
                subtitleColor=INK,
                fontSize=13,
                fontWeight=600,
                subtitleFontSize=11,
                anchor="start",
                frame="group",
                limit=PANEL_WIDTH + 40,
                subtitlePadding=3,
            ),
        ),
    )
    # Altair may rename views when it puts charts together: ask the whole, not its parts.
    layers = [layer for part in whole.concat for layer in getattr(part, "layer", ())]
    marks = [layer.name for layer in layers if layer.name is not alt.Undefined]
    if marks:
        whole.params = _parameters(group, marks, seeds)
    return whole


def _parameters(group: str, views: Sequence[str], seeds: bool) -> list[Any]:
    return [
        alt.TopLevelSelectionParameter(
            name=SELECTION, select={"type": "point", "fields": [group]}, bind="legend", views=list(views)
        ),
        # Without zoom: else a turn of the wheel over a brush would not move the page.
        alt.TopLevelSelectionParameter(
            name=BRUSH,
            select={
                "type": "interval",
                "encodings": ["x"],
                "zoom": False,
                "mark": {"fill": "#8A8A8A", "fillOpacity": 0.18, "stroke": "#8A8A8A"},
            },
            views=list(views),
        ),
        alt.VariableParameter(name=SPAN, value=None),
        *([alt.VariableParameter(name=SEED, value="all")] if seeds else []),
    ]
