"""Where the weights change: the RECT paper's Figure 5, mean |ΔW| of each block of the edited matrices."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.rows import (
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_last,
)
from collateral.report.charts.style import arrange_panels, inline_values

MOST = 2400  # blocks of one chart
CHECKPOINTS = 4  # of one editor, as the paper's figure has


def heatmap_points(tables: Tables, most: int = MOST) -> pl.DataFrame:
    """Return (parameter, editor, edits, block_row, block_col, value, matrices, merged): mean |ΔW| by block.

    Means over seeds. Of each editor the matrix that changes most, of `matrices` that it changes, at no more than four
    checkpoints: the first, the last and those evenly between. Editors that changed nothing are left out. Above `most`
    blocks in all, neighbours are merged into their mean (`merged` by `merged`); the full table is in the results.
    """
    heatmaps = get_table(tables, "heatmaps")
    if heatmaps.is_empty():
        return pl.DataFrame()
    changed = _chosen(heatmaps.filter((pl.col("value") > 0).any().over("editor")))
    step = 1
    while True:
        block = [(pl.col(axis) // step).cast(pl.Int64) for axis in ("block_row", "block_col")]
        key = ["parameter", "editor", "edits", "matrices", "block_row", "block_col"]
        means = changed.with_columns(block).group_by(key, maintain_order=True).agg(pl.col("value").mean())
        if means.height <= most or means.select("block_row", "block_col").n_unique() == 1:
            return means.with_columns(merged=pl.lit(step))
        step += 1


def _chosen(blocks: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each editor's most changed matrix, at its first, last and two checkpoints between."""
    means = blocks.group_by(["editor", "parameter"], maintain_order=True).agg(pl.col("value").mean())
    matrix = means.group_by("editor", maintain_order=True).agg(
        parameter=pl.col("parameter").sort_by("value", descending=True, maintain_order=True).first(),
        matrices=(pl.col("value") > 0).sum(),
    )
    own = blocks.join(matrix, on=["editor", "parameter"], how="inner", maintain_order="left")
    ranked = own.with_columns(
        rank=pl.col("edits").rank("dense").over("editor").cast(pl.Int64) - 1,
        count=pl.col("edits").n_unique().over("editor").cast(pl.Int64),
    )
    wanted = [
        (index * (pl.col("count") - 1) / (CHECKPOINTS - 1)).round().cast(pl.Int64)
        for index in range(CHECKPOINTS)
    ]
    return ranked.filter(pl.any_horizontal(pl.col("rank") == place for place in wanted)).drop("rank", "count")


def heatmaps_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return mean |ΔW| by block, one panel per editor and checkpoint, on one square-root scale.

    Raises:
        CollateralError: the table has no block that changed.
    """
    points = heatmap_points(tables)
    if points.is_empty():
        raise no_rows_error("heatmaps")
    top, edits = max(points["value"].to_list()), find_checkpoints(points)
    several = points["parameter"].n_unique() > 1 or bool((points["matrices"] > 1).any())
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
    place = {name: index for index, name in enumerate(order_editors(order, find_editors(points)))}
    ordered = points.with_columns(place=pl.col("editor").replace_strict(place)).sort(
        "place", "edits", maintain_order=True
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
    return arrange_panels(charts, key, min(len(edits), 4), axes=46)


def heatmaps_caption(tables: Tables) -> str:
    """Return the caption of the heat maps."""
    rows = heatmap_points(tables)
    final = select_last(rows)
    top = max(final.to_dicts(), key=lambda row: row["value"])
    mean = float(final.filter(pl.col("editor") == top["editor"])["value"].to_numpy().mean())
    silent = [
        name for name in find_editors(get_table(tables, "heatmaps")) if name not in set(find_editors(rows))
    ]
    left_out = f" Left out, as nothing changed: {words.join(silent)}." if silent else ""
    step, matrices = int(rows["merged"][0]), int(rows["matrices"].to_numpy().max())
    chosen = " Of several edited matrices, the one that changes most." if matrices > 1 else ""
    merged = f" {step} × {step} neighbouring blocks are merged into their mean." if step > 1 else ""
    return (
        "Where the weights change: mean |ΔW| of each block of the edited matrix, by editor and checkpoint."
        f"{chosen}{merged} After {top['edits']} edits, the block that changes most belongs to {top['editor']} "
        f"({words.number(top['value'], 3)}, {words.number(top['value'] / mean, 3)} times its mean).{left_out}"
    )


FIGURES = (
    Figure(
        "heatmaps",
        "Where the weights change",
        "weights",
        ("heatmaps",),
        heatmap_points,
        heatmaps_chart,
        heatmaps_caption,
        "the comparison of edited weights by block, for an editor that changes them",
        rank=220,
    ),
)
