"""Harm at matched efficacy: what is left of the abilities against how well the edits took, and areas under both."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import MOST, thin_checkpoints
from collateral.report.charts.marks import (
    NAMES_WIDTH,
    Plot,
    draw_dots,
    encode_group,
    fade_unselected,
    join_panels,
)
from collateral.report.charts.rows import (
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_each_last,
)
from collateral.report.charts.style import COLOURS, COLUMNS, INK, PANEL_WIDTH, SHAPES, inline_values

KINDS = {
    "teacher-forced": "reliability, teacher-forced",
    "generation": "reliability, free generation",
    "retention": "retention of all edits so far",
}
SIDE = 232  # pixels of a square panel


def tradeoff_points(tables: Tables) -> pl.DataFrame:
    """Return the table of trade-offs: one row per kind of efficacy, editor and checkpoint."""
    return get_table(tables, "tradeoffs")


def tradeoffs_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per kind of efficacy: ability against efficacy, an editor's checkpoints joined in order.

    Raises:
        CollateralError: no checkpoint has both measures.
    """
    points = tradeoff_points(tables)
    if points.is_empty():
        raise no_rows_error("tradeoffs")
    present = find_editors(points)
    names = order_editors(order, present)
    kept = thin_checkpoints(points.height, find_checkpoints(points))
    drawn = points.filter(pl.col("edits").is_in(kept) | pl.col("on_front")).select(
        "editor", "edits", "efficacy_kind", "efficacy", "ability", "on_front"
    )
    panels = [
        _panel(f"tradeoff_{index}", str(kind), rows.head(MOST), names, present)
        for index, ((kind,), rows) in enumerate(
            drawn.partition_by(["efficacy_kind"], as_dict=True, maintain_order=True).items()
        )
    ]
    key = "Up and to the right is better. Rings and dashes: the front, which no other point beats in both."
    return join_panels(panels, key, COLUMNS)


def _panel(
    name: str, kind: str, rows: pl.DataFrame, names: Sequence[str], present: Sequence[str]
) -> alt.LayerChart:
    x = alt.X(
        "efficacy:Q",
        title=KINDS.get(kind, kind),
        scale=alt.Scale(domain=[-0.03, 1.03], nice=False),
        axis=alt.Axis(format=".0%", tickCount=5, grid=True),
    )
    y = alt.Y(
        "ability:Q",
        title="ability left (1: all)",
        scale=alt.Scale(zero=False, nice=True, padding=8),
        axis=alt.Axis(format=".2~f", tickCount=5),
    )
    base = alt.Chart(inline_values(rows)).encode(x=x, y=y)
    told = base.encode(
        color=encode_group(alt.Color, "editor", names, COLOURS, present=present),
        opacity=fade_unselected(),
        tooltip=[
            alt.Tooltip("editor:N"),
            alt.Tooltip("edits:Q"),
            alt.Tooltip("efficacy:Q", format=".3~g"),
            alt.Tooltip("ability:Q", title="ability left", format=".4~g"),
            alt.Tooltip("on_front:N", title="on the front"),
        ],
    )
    shape = encode_group(alt.Shape, "editor", names, SHAPES, present=present)
    front = base.transform_filter("datum.on_front")
    layers = [
        front.mark_line(color=INK, strokeDash=[4, 4], opacity=0.6, strokeWidth=1.2),
        told.mark_line(strokeWidth=1.1).encode(order=alt.Order("edits:Q")),
        front.mark_point(color=INK, size=150, filled=False, opacity=0.8, strokeWidth=1.2),
        told.mark_point(size=52, filled=True).encode(shape=shape).properties(name=name),
    ]
    return alt.LayerChart(layer=layers, width=PANEL_WIDTH, height=SIDE, title=alt.TitleParams(kind))


def tradeoffs_caption(tables: Tables) -> str:
    """Return the caption of the trade-offs."""
    points = tradeoff_points(tables)
    count = points.select("editor", "edits").unique().height
    told = []
    for (kind,), rows in points.partition_by(["efficacy_kind"], as_dict=True, maintain_order=True).items():
        front = rows.filter(pl.col("on_front"))["editor"].unique(maintain_order=True).sort().to_list()
        told.append(f"{kind}: {words.join(front)}" if front else f"{kind}: none")
    final = select_each_last(points).drop_nulls("ability").sort("ability", "editor")
    worst = final.row(0, named=True) if final.height else None
    aside = (
        ""
        if worst is None
        else f" The least is left under {worst['editor']}: {words.percent(worst['ability'])} after "
        f"{worst['edits']} edits."
    )
    return (
        "What is left of the abilities, as the mean of those that are measurable (1: the unedited score, 0: "
        "chance), "
        f"against how well the edits took; {words.count(count, 'checkpoint')} of "
        f"{words.count(len(find_editors(points)), 'editor')}, means over seeds, no intervals. On the front, "
        f"{'; '.join(told)}.{aside}"
    )


def area_points(tables: Tables) -> pl.DataFrame:
    """Return (editor, panel, value, last_edits): the area under the abilities, and that under each efficacy."""
    areas = get_table(tables, "areas")
    if areas.is_empty():
        return pl.DataFrame()
    ability = areas.group_by("editor", maintain_order=True).agg(
        value=pl.col("ability_area").first(), last_edits=pl.col("last_edits").max(), panel=pl.lit("abilities")
    )
    efficacy = areas.select(
        "editor", value="efficacy_area", last_edits="last_edits", panel=pl.col("efficacy_kind")
    )
    columns = ["panel", "editor", "value", "last_edits"]
    return pl.concat([ability.select(columns), efficacy.select(columns)], how="vertical_relaxed")


def areas_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel for the abilities and one per kind of efficacy: each editor's area, as a dot.

    Raises:
        CollateralError: no area was computed.
    """
    points = area_points(tables)
    if points.is_empty():
        raise no_rows_error("areas")
    present = find_editors(points)
    names = order_editors(order, present)
    ranked = points.filter(pl.col("panel") == "abilities").sort("value", descending=True, nulls_last=True)
    none = pl.lit(None, pl.Float64)
    values = [0.0, 1.0, *points["value"].drop_nulls().to_list()]
    domain = (min(values) - 0.04, max(values) + 0.04)
    panels = [
        draw_dots(
            Plot(
                name=f"area_{index}",
                rows=rows.drop("panel").with_columns(lower=none, upper=none),
                title=str(panel),
                value_title="mean over the edits",
                value_format=".2~f",
                domain=domain,
                references=[(1.0, "unedited")] if panel == "abilities" else [],
                tooltip=[alt.Tooltip("last_edits:Q", title="edits")],
            ),
            "editor",
            ranked["editor"].to_list(),
            "editor",
            names,
        )
        for index, ((panel,), rows) in enumerate(
            points.partition_by(["panel"], as_dict=True, maintain_order=True).items()
        )
    ]
    key = "Area under each curve over the edits, as its mean height; editors by how much ability they leave."
    return join_panels(panels, key, 2, axes=NAMES_WIDTH)


def areas_caption(tables: Tables) -> str:
    """Return the caption of the areas."""
    points = area_points(tables)
    ranked = points.filter(pl.col("panel") == "abilities").drop_nulls("value").sort("value").to_dicts()
    finding = "No ability was measurable."
    if ranked:
        low, high = ranked[0], ranked[-1]
        least = "" if low is high else f", {low['editor']} {words.percent(low['value'])}"
        finding = (
            f"Over all its edits, {high['editor']} leaves {words.percent(high['value'])} of the abilities"
            f"{least}."
        )
    return (
        "Area under the curves of ability and of edit success over the number of edits, divided by the editor's "
        "last "
        f"number of edits ({words.span(points['last_edits'].to_list())}): 1 means that nothing is lost, or that "
        f"every edit holds throughout; trapezoids, no intervals. {finding}"
    )


FIGURES = (
    Figure(
        "tradeoffs",
        "Abilities at matched edit success",
        "index",
        ("tradeoffs",),
        tradeoff_points,
        tradeoffs_chart,
        tradeoffs_caption,
        "checkpoints with both abilities and probes of edits",
        rank=40,
    ),
    Figure(
        "areas",
        "Area under abilities and edit success",
        "index",
        ("areas",),
        area_points,
        areas_chart,
        areas_caption,
        "checkpoints with both abilities and probes of edits",
        rank=50,
    ),
)
