"""How far the model's inner life drifts on a fixed text: activations, hidden states, next-token distribution."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.means import average_seeds, count_seeds, select_all_seeds, split_seeds
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_last,
)
from collateral.report.charts.style import Panel

STATISTICS = {
    "kl_next_token": ("KL to the unedited model", "nats, mean over positions", 0.0),
    "hidden_drift_cosine": ("hidden drift", "1 − cosine", 0.0),
    "hidden_drift_cka": ("hidden drift", "1 − linear CKA", 0.0),
    "activation_norm_ratio": ("activation norm", "edited / unedited", 1.0),
}


def drift_points(tables: Tables) -> pl.DataFrame:
    """Return (statistic, layer, editor, edits, value, stderr, seeds, seed): means over seeds."""
    drift = get_table(tables, "drift")
    if drift.is_empty():
        return pl.DataFrame()
    return split_seeds(drift.filter(pl.col("editor") != UNEDITED), _means)


def _means(drift: pl.DataFrame) -> pl.DataFrame:
    return average_seeds(drift, ["statistic", "layer", "editor", "edits"])


def drift_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per statistic over the number of edits: at the last layer measured, or of the output.

    Raises:
        CollateralError: no drift was measured.
    """
    points = drift_points(tables)
    if points.is_empty():
        raise no_rows_error("drift")
    panels = []
    for index, (statistic, (title, said, unedited)) in enumerate(STATISTICS.items()):
        rows = points.filter(pl.col("statistic") == statistic)
        layers = rows["layer"].drop_nulls().to_list()
        if layers:
            rows = rows.filter(pl.col("layer") == max(layers))
        if rows.is_empty():
            continue
        panels.append(
            Panel(
                name=f"drift_{index}",
                rows=rows.select("editor", "edits", "value", "stderr", "seed"),
                title=title,
                subtitle=[f"{said}, layer {max(layers)}" if layers else said],
                reference=unedited,
            )
        )
    present = find_editors(points)
    key = "On a fixed text. Solid rule: unedited model. Bars: ±1 standard error over seeds."
    return draw_lines(panels, order_editors(order, present), find_checkpoints(points), present, key)


def drift_caption(tables: Tables) -> str:
    """Return the caption of the drift."""
    points = select_all_seeds(drift_points(tables))
    output = select_last(points).filter(pl.col("statistic") == "kl_next_token").to_dicts()
    top = words.largest(output, lambda row: row["value"])
    finding = ""
    if top is not None:
        finding = (
            f" After {top['edits']} edits, the next-token distribution is farthest from the unedited model's under "
            f"{top['editor']}: {words.number(top['value'], 3)} nats."
        )
    layers = points["layer"].n_unique() - int(points["layer"].null_count() > 0)
    return (
        "Drift of the model on a fixed text: divergence of its next-token distribution, and of hidden states at the "
        f"last layer of {words.count(layers, 'layer')} measured.{words.seeds(count_seeds(points))}{finding}"
    )


FIGURES = (
    Figure(
        "drift",
        "Drift of activations and predictions",
        "weights",
        ("drift",),
        drift_points,
        drift_chart,
        drift_caption,
        "the measurement of drift on a fixed text at edited checkpoints",
        rank=230,
    ),
)
