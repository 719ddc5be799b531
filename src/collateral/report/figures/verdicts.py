"""Which editor harms which ability: the matrix of verdicts at each editor's last checkpoint."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import Plot, draw_cells, join_panels
from collateral.report.charts.rows import (
    Tables,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_each_last,
)

# Fill and mark of each verdict: words on it have a contrast of at least 4.5; no two share a mark, so that the
# colour says nothing of its own.
VERDICTS = {
    "harm": ("#B3400A", "▼"),
    "no harm": ("#00704F", "="),
    "inconclusive": ("#DDDDDD", "?"),
    "at chance": ("#B9DDF2", "~"),
    "collapsed": ("#2b2b2b", "✕"),
    "not evaluated": ("#ffffff", "–"),
}
ABILITY_WIDTH, EDITOR_HEIGHT = 92, 27


def verdict_points(tables: Tables) -> pl.DataFrame:
    """Return the rows of the comparisons at each editor's last checkpoint, with the words of their cells.

    column: the ability, with its task, its metric, or both where it is measured in several ways. words: the verdict's
    mark and the estimate, in percentage points for shares and as a ratio for perplexities.
    """
    comparisons = get_table(tables, "comparisons")
    if comparisons.is_empty():
        return pl.DataFrame()
    final = select_each_last(comparisons)
    tasks, metrics = (pl.col(name).n_unique().over("ability") for name in ("task", "metric"))
    column = (
        pl.when((tasks > 1) & (metrics > 1))
        .then(pl.format("{} ({} {})", "ability", "task", "metric"))
        .when(tasks > 1)
        .then(pl.format("{} ({})", "ability", "task"))
        .when(metrics > 1)
        .then(pl.format("{} ({})", "ability", "metric"))
        .otherwise(pl.col("ability"))
    )
    shown = final.with_columns(column=column)
    return shown.with_columns(
        words=pl.Series([_words(row) for row in shown.to_dicts()], dtype=pl.String),
        dark=pl.col("verdict").is_in(["harm", "no harm", "collapsed"]),
    )


def _words(row: words.Row) -> str:
    mark, estimate = VERDICTS[row["verdict"]][1], row["estimate"]
    if row["verdict"] in ("collapsed", "not evaluated") or estimate is None or not math.isfinite(estimate):
        return mark
    return f"{mark} {format_estimate(row['scale'], estimate, row['unedited'])}"


def format_estimate(scale: str, estimate: float, unedited: float | None = None) -> str:
    """Return an estimate in words: ×ratio for logarithms of ratios, percentage points for differences of shares."""
    if scale == "log_ratio":
        return f"×{words.number(math.exp(estimate), 3)}"
    if unedited is not None and not 0 <= unedited <= 1:
        return ("+" if estimate > 0 else "") + words.number(estimate, 3)
    return words.points(estimate)


def verdicts_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return the matrix editor x ability: verdict as colour and mark, with the estimated change.

    Raises:
        CollateralError: nothing was compared.
    """
    points = verdict_points(tables)
    if points.is_empty():
        raise no_rows_error("comparisons")
    names = order_editors(order, find_editors(points), only=True)
    columns = points["column"].unique(maintain_order=True).to_list()
    numbers = ["unedited", "edited", "estimate", "low", "high"]
    more = ["n", "seeds", "p", "p_holm", "mde", "margin", "verdict", "words", "dark"]
    keep = ["editor", "column", "edits", "task", "metric", *numbers, *more]
    fills = [fill for fill, _ in VERDICTS.values()]
    marks = {name: f"{mark} {name}" for name, (_, mark) in VERDICTS.items()}
    rows = points.select(keep).with_columns(said=pl.col("verdict").replace_strict(marks))
    present = [mark for name, mark in marks.items() if name in set(points["verdict"])]
    legend = alt.Legend(values=present, symbolType="square", symbolSize=170, title=None, columns=6)
    tooltip = [
        *(alt.Tooltip(f"{name}:N") for name in ("editor", "column", "task", "metric", "verdict")),
        alt.Tooltip("edits:Q"),
        *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in numbers),
        alt.Tooltip("p:Q", format=".2~g"),
        alt.Tooltip("p_holm:Q", title="p, Holm", format=".2~g"),
        alt.Tooltip("mde:Q", title="minimum detectable effect", format=".3~g"),
        alt.Tooltip("margin:Q", format=".3~g"),
        alt.Tooltip("n:Q", title="items"),
        alt.Tooltip("seeds:Q"),
    ]
    plot = Plot("verdicts", rows, "", tooltip=tooltip)
    top = alt.Axis(orient="top", labelAngle=-30, ticks=False, domain=False, labelLimit=230, labelPadding=6)
    chart = draw_cells(
        plot,
        alt.X("column:N", sort=columns, title=None, axis=top),
        alt.Y("editor:N", sort=names, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=170)),
        alt.Color("said:N", scale=alt.Scale(domain=list(marks.values()), range=fills), legend=legend),
        (ABILITY_WIDTH * len(columns), EDITOR_HEIGHT * len(names)),
    )
    key = "Each editor at its last checkpoint: change from the unedited model in points, or × for perplexity."
    return join_panels([chart], key, 1, axes=180)


def verdicts_finding(tables: Tables) -> str:
    """Return one sentence: how many cells show harm, for whom most, and how many show that there is none."""
    points = verdict_points(tables)
    counts = dict(points["verdict"].value_counts().iter_rows())
    measurable = points.height - counts.get("at chance", 0) - counts.get("not evaluated", 0)
    harmed = points.filter(pl.col("verdict").is_in(["harm", "collapsed"]))
    clear, open_ended = counts.get("no harm", 0), counts.get("inconclusive", 0)
    rest = f"{clear} show no harm beyond the margin and {open_ended} are inconclusive."
    if harmed.is_empty():
        return f"None of {measurable} measurable cells shows harm; {rest}"
    most = harmed["editor"].value_counts(sort=True)
    top = most.filter(pl.col("count") == pl.col("count").max())["editor"].sort().to_list()
    return (
        f"{harmed.height} of {measurable} measurable cells show harm, most for "
        f"{words.join(top)} ({most['count'][0]}); {rest}"
    )


def verdicts_caption(tables: Tables) -> str:
    """Return the caption of the matrix of verdicts."""
    points = verdict_points(tables)
    items = [n for n in points["n"].to_list() if n is not None]
    sized = f"n = {words.span(items)} items a cell, paired with the unedited model's. " if items else ""
    return (
        f"What each editor does to each ability at its last checkpoint ({words.span(points['edits'].to_list())} "
        f"edits). {sized}▼ harm: worse, after Holm's correction over all measurable cells of this model and data "
        "set; = no harm: an equivalence test, corrected likewise, excludes a loss beyond the margin; ? "
        "inconclusive: neither; ~ at chance before editing. Intervals, p values and the minimum detectable effect "
        f"are in the tooltips and the data. {verdicts_finding(tables)}"
    )


FIGURES = (
    Figure(
        "verdicts",
        "Which editor harms which ability",
        "abilities",
        ("comparisons",),
        verdict_points,
        verdicts_chart,
        verdicts_caption,
        "the paired comparison of edited checkpoints with the unedited model",
        rank=20,
    ),
)
