"""Tidy table → altair.Chart: one pure function per figure. The caption of each is in `collateral.captions`.

`order` names the editors of the whole study, so that each has the same colour in every figure, also where another
editor has no rows.
"""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral import summaries
from collateral.errors import CollateralError
from collateral.panels import COLUMNS, Panel, draw, figure, inline_values

METRICS = {"acc": "accuracy", "acc_norm": "length-normalised accuracy"}
WHEN = {"after_edit": "right after its edit", "now": "at the checkpoint"}


def _no_rows(table: str) -> CollateralError:
    return CollateralError(f"table '{table}' has no rows to plot; run the workflow that makes it")


def _all(order: Sequence[str], present: Sequence[str], only: bool = False) -> list[str]:
    """Return the editors in the study's order, then those that it does not name; `only` those present."""
    names = [*order, *(name for name in present if name not in order)]
    return [name for name in names if name in present] if only else names


def abilities(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per ability (primary metric) over the number of edits, one line per editor.

    Raises:
        CollateralError: the table has no edited rows.
    """
    points = summaries.ability_points(table)
    if points.is_empty() or not summaries.checkpoints(points):
        raise _no_rows("abilities")
    present, edits = summaries.editors(points), summaries.checkpoints(points)
    names = _all(order, present)
    panels = []
    for index, rows in enumerate(points.partition_by(summaries.ABILITY_KEYS, maintain_order=True)):
        first = rows.row(0, named=True)
        metric = METRICS.get(first["metric"], first["metric"].replace("_", " "))
        better = "" if first["higher_is_better"] else ", lower is better"
        warn = bool(rows["at_chance"].any())
        # An empty second line keeps the panels of a row level where one of them carries the mark.
        second = [summaries.AT_CHANCE if warn else ""] if points["at_chance"].any() else []
        panels.append(
            Panel(
                name=f"ability_{index}",
                rows=rows.filter(pl.col("editor") != summaries.UNEDITED).select(
                    "editor", "edits", "value", "stderr", "n", "change"
                ),
                title=first["ability"],
                subtitle=[f"{first['task']} · n = {first['n']}", *second],
                y_title=metric + better,
                y_format=".0%" if first["is_share"] else ".3~g",
                reference=first["unedited"],
                chance=first["chance"],
                warn=warn,
                tooltip=[
                    alt.Tooltip("change:Q", title="change from unedited", format="+.4~g"),
                    alt.Tooltip("n:Q", title="items"),
                ],
            )
        )
    key = "Solid rule: unedited model. Dotted rule: chance. Bars: ±1 standard error."
    return figure([draw(panel, "editor", "editor", names, edits, present) for panel in panels], key, COLUMNS)


def efficacy(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return reliability, generalization, locality (rows) by teacher-forced, probability, generation (columns).

    Raises:
        CollateralError: the table has no edited rows measured at a checkpoint.
    """
    points = summaries.efficacy_points(table)
    if points.is_empty() or not summaries.checkpoints(points):
        raise _no_rows("efficacy")
    present, edits = summaries.editors(points), summaries.checkpoints(points)
    names = _all(order, present)
    panels = []
    for index, ((kind, how), rows) in enumerate(
        points.partition_by(["kind", "how"], as_dict=True, include_key=False, maintain_order=True).items()
    ):
        reference = rows.filter(pl.col("editor") == summaries.UNEDITED)
        panels.append(
            Panel(
                name=f"efficacy_{index}",
                rows=rows.filter(pl.col("editor") != summaries.UNEDITED),
                title=str(kind),
                subtitle=[str(how)],
                y_format=".0%",
                domain=(-0.03, 1.03),
                reference=reference["value"].mean() if reference.height else None,  # type: ignore[arg-type]
                tooltip=[alt.Tooltip("n:Q", title="probes"), alt.Tooltip("facts:Q")],
            )
        )
    key = "Solid rule: unedited model. Bars: ±1 standard error, clustered by fact."
    return figure([draw(panel, "editor", "editor", names, edits, present) for panel in panels], key, COLUMNS)


def retention(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per editor: reliability of the same edits right after each edit and at the checkpoint.

    Raises:
        CollateralError: no probe was measured at both times.
    """
    points = summaries.retention_points(table)
    if points.is_empty():
        raise _no_rows("efficacy")
    edits = summaries.checkpoints(points)
    named = points.with_columns(pl.col("when").replace_strict(WHEN))
    charts = [
        draw(
            Panel(
                name=f"retention_{index}",
                rows=named.filter(pl.col("editor") == editor).drop("editor"),
                title=editor,
                y_title="reliability, teacher-forced",
                y_format=".0%",
                domain=(-0.03, 1.03),
                tooltip=[alt.Tooltip("n:Q", title="probes"), alt.Tooltip("facts:Q")],
            ),
            "when",
            "measured",
            list(WHEN.values()),
            edits,
            list(WHEN.values()),
        )
        for index, editor in enumerate(_all(order, summaries.editors(points), only=True))
    ]
    return figure(
        charts, "The same edits, measured twice. Bars: ±1 standard error, clustered by fact.", COLUMNS, "when"
    )


def norms(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return mean |W| of each edited matrix and the Manhattan distance Σ|ΔW|, over the number of edits.

    Raises:
        CollateralError: the table has no norms of edited weights.
    """
    points = summaries.norm_points(table)
    if points.is_empty():
        raise _no_rows("weights")
    present, edits = summaries.editors(points), summaries.checkpoints(points)
    names = _all(order, present)
    charts = [
        draw(
            Panel(
                name=f"norm_{index}",
                rows=rows.select("editor", "edits", "value", "stderr"),
                title=summaries.MEAN_ABS if rows["panel"][0] != summaries.MANHATTAN else summaries.MANHATTAN,
                subtitle=[rows["panel"][0].partition(" of ")[2] or "Σ |ΔW| over all edited matrices"],
                y_format=".5~g" if rows["panel"][0] != summaries.MANHATTAN else ".3~s",
                reference=rows["reference"][0],
            ),
            "editor",
            "editor",
            names,
            edits,
            present,
        )
        for index, rows in enumerate(points.partition_by("panel", maintain_order=True))
    ]
    return figure(charts, "Solid rule: unedited weights. Bars: ±1 standard error over seeds.", COLUMNS)


def shares(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per threshold: share of elements whose relative change δ exceeds it, over edits.

    Raises:
        CollateralError: the table has no shares of δ.
    """
    points = summaries.share_points(table)
    if points.is_empty():
        raise _no_rows("weights")
    present, edits = summaries.editors(points), summaries.checkpoints(points)
    names = _all(order, present)
    charts = [
        draw(
            Panel(
                name=f"share_{index}",
                rows=rows.select("editor", "edits", "value", "stderr"),
                title=f"δ > {rows['threshold'][0]:g}",
                subtitle=["share of elements"],
                y_format=".3~%",
            ),
            "editor",
            "editor",
            names,
            edits,
            present,
        )
        for index, rows in enumerate(points.partition_by("threshold", maintain_order=True))
    ]
    return figure(charts, "δ = |ΔW| / |W|, element by element. Bars: ±1 standard error over seeds.", COLUMNS)


def heatmaps(table: pl.DataFrame, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return mean |ΔW| by block, one panel per edited matrix, editor and checkpoint, on one square-root scale.

    Raises:
        CollateralError: the table has no block that changed.
    """
    points = summaries.heatmap_points(table)
    if points.is_empty():
        raise _no_rows("heatmaps")
    top, edits = max(points["value"].to_list()), summaries.checkpoints(points)
    several = points["parameter"].n_unique() > 1
    height, width = (int(points[axis].max()) + 1 for axis in ("block_row", "block_col"))  # type: ignore[arg-type]
    # Whole pixels a block: no seams between them.
    size = {"width": width * max(1, round(196 / width)), "height": height * max(1, round(196 / width))}
    colour = alt.Color(
        "value:Q",
        title="mean |ΔW|",
        scale=alt.Scale(scheme="viridis", type="sqrt", domain=[0, top]),
        legend=alt.Legend(format=".2~g", gradientLength=220, tickCount=4),
    )
    charts = []
    place = {name: index for index, name in enumerate(_all(order, summaries.editors(points)))}
    ordered = points.with_columns(place=pl.col("editor").replace_strict(place)).sort(
        "parameter", "place", "edits", maintain_order=True
    )
    for (parameter, editor, count), rows in ordered.partition_by(
        ["parameter", "editor", "edits"], as_dict=True, include_key=False, maintain_order=True
    ).items():
        chart = alt.Chart(inline_values(rows.select("block_row", "block_col", "value")))
        charts.append(
            chart.mark_rect(aria=False)
            .encode(
                x=alt.X("block_col:O", title="input dimension →", axis=alt.Axis(labels=False, ticks=False)),
                y=alt.Y("block_row:O", title="output dimension →", axis=alt.Axis(labels=False, ticks=False)),
                color=colour,
                tooltip=[
                    alt.Tooltip("block_row:O", title="block row"),
                    alt.Tooltip("block_col:O", title="block column"),
                    alt.Tooltip("value:Q", title="mean |ΔW|", format=".3~g"),
                ],
            )
            .properties(
                **size,
                title=alt.TitleParams(
                    f"{editor}",
                    subtitle=[
                        "1 edit" if count == 1 else f"{count} edits",
                        *([str(parameter)] if several else []),
                    ],
                ),
            )
        )
    key = "Mean |ΔW| by block; the colour scale is a square root, the same in every panel."
    return figure(charts, key, min(len(edits), 4), axes=46)
