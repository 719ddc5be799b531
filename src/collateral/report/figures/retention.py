"""Retention of every earlier edit at every later checkpoint: the matrix of step and age."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import Plot, draw_cells, join_panels
from collateral.report.charts.rows import Tables, find_editors, get_table, no_rows_error, order_editors

STEPS = 8  # checkpoints of a panel at most
CELL_WIDTH, CELL_HEIGHT = 46, 24
HOW = {"teacher-forced": "teacher-forced", "generation": "free generation"}


def age_points(tables: Tables) -> pl.DataFrame:
    """Return the scores of earlier edits by checkpoint and age (edits made after their own), and the words of cells.

    Only ages of edits that were measured; `age` is the bin's name, of no edits since to the oldest.
    """
    retention = get_table(tables, "retention")
    if retention.is_empty():
        return pl.DataFrame()
    aged = retention.filter((pl.col("age_low") >= 0) & pl.col("value").is_not_null())
    low, high = pl.col("age_low").cast(pl.String), pl.col("age_high").cast(pl.String)
    return aged.with_columns(
        age=pl.when(pl.col("age_low") == pl.col("age_high"))
        .then(low)
        .otherwise(pl.format("{}–{}", low, high)),
        words=pl.format("{}", (100 * pl.col("value")).round(0).cast(pl.Int64)),
        dark=pl.col("value") < 0.55,
    ).sort("age_low", "edits", maintain_order=True)


def ages_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per editor and way of asking: share of edits that hold, checkpoint by age.

    Raises:
        CollateralError: no edit was measured again.
    """
    points = age_points(tables)
    if points.is_empty():
        raise no_rows_error("retention")
    ages = points["age"].unique(maintain_order=True).to_list()
    colour = alt.Color(
        "value:Q",
        title="edits that hold",
        scale=alt.Scale(scheme="viridis", domain=[0, 1]),
        legend=alt.Legend(format=".0%", gradientLength=180, tickCount=3),
    )
    tooltip = [
        alt.Tooltip("edits:Q", title="checkpoint"),
        alt.Tooltip("age:N", title="edits since"),
        alt.Tooltip("value:Q", format=".1%"),
        alt.Tooltip("stderr:Q", title="standard error", format=".2~%"),
        alt.Tooltip("n:Q", title="probes"),
    ]
    steps = _some(points["edits"].unique().sort().to_list())
    panels = []
    for editor in order_editors(order, find_editors(points), only=True):
        for how, said in HOW.items():
            own = points.filter((pl.col("editor") == editor) & (pl.col("how") == how))
            if own.is_empty():
                continue
            rows = own.filter(pl.col("edits").is_in(steps))
            axis = alt.Axis(labelAngle=0, ticks=False, domain=False)
            panels.append(
                draw_cells(
                    Plot(
                        "",
                        rows.select("edits", "age", "value", "stderr", "n", "words", "dark"),
                        editor,
                        [said],
                        tooltip=tooltip,
                    ),
                    alt.X("edits:O", scale=alt.Scale(domain=steps), title="checkpoint (edits)", axis=axis),
                    alt.Y(
                        "age:N",
                        sort=ages[::-1],
                        scale=alt.Scale(domain=ages[::-1]),
                        title="edits since",
                        axis=axis,
                    ),
                    colour,
                    (CELL_WIDTH * len(steps), CELL_HEIGHT * len(ages)),
                )
            )
    key = "Per cent of the edits of an age that hold at a checkpoint; the youngest are at the bottom."
    return join_panels(panels, key, 4, axes=70)


def _some(steps: Sequence[int]) -> list[int]:
    if len(steps) <= STEPS:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (STEPS - 1))] for index in range(STEPS)]


def ages_caption(tables: Tables) -> str:
    """Return the caption of the matrix of step and age."""
    points = age_points(tables)
    final = points.filter(pl.col("edits") == pl.col("edits").max().over("editor", "how"))
    ends = (
        final.filter(pl.col("how") == final["how"].sort(descending=True)[0])
        .group_by("editor", "how", "edits", maintain_order=True)
        .agg(
            young=pl.col("value").sort_by("age_low").first(),
            old=pl.col("value").sort_by("age_low").last(),
            age=pl.col("age").sort_by("age_low").last(),
        )
        .to_dicts()
    )
    worst = max(ends, key=lambda row: row["young"] - row["old"])
    finding = (
        f"{worst['editor']} forgets most with age: after {worst['edits']} edits, {words.percent(worst['young'])} "
        f"of its "
        f"youngest and {words.percent(worst['old'])} of its oldest edits ({worst['age']} edits since) hold, "
        f"{HOW.get(worst['how'], worst['how'])}."
        if worst["young"] > worst["old"]
        else "Under no editor do the oldest edits hold less often than the youngest."
    )
    return (
        "Share of earlier edits that hold at each checkpoint, by the number of edits made since, teacher-forced "
        "and in "
        f"free generation; n = {words.span(points['n'].to_list())} probes a cell; standard errors, clustered "
        f"by fact, "
        f"are in the tooltips and the data. {finding}"
    )


FIGURES = (
    Figure(
        "retention-ages",
        "Retention by age of the edit",
        "edits",
        ("retention",),
        age_points,
        ages_chart,
        ages_caption,
        "probes of earlier edits at a later checkpoint",
        rank=130,
    ),
)
