"""Abilities by the form of the question that is edited, and by how surprising the edits are (D4S, data view)."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.marks import Plot, draw_curves, join_panels
from collateral.report.charts.means import add_bars
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_common,
)
from collateral.report.charts.style import COLUMNS, Panel


def question_points(tables: Tables) -> pl.DataFrame:
    """Return (editor, question_type, edits, value, stderr, perplexity, facts): what is left of the abilities.

    value: mean over measurable abilities, then over data sets that ask one type of question only, and seeds. stderr
    is that of the mean over data sets and seeds. perplexity: median over the facts of those data sets of how
    surprising the edit's target is to the unedited model.
    """
    objectives, normalised = get_table(tables, "objectives"), get_table(tables, "normalised")
    if objectives.is_empty() or normalised.is_empty():
        return pl.DataFrame()
    pure = (
        objectives.drop_nulls("question_type")
        .group_by("dataset", maintain_order=True)
        .agg(pl.col("question_type").unique())
        .filter(pl.col("question_type").list.len() == 1)
        .explode("question_type")
    )
    surprise = (
        objectives.join(pure, on=["dataset", "question_type"], how="semi")
        .group_by("question_type", maintain_order=True)
        .agg(perplexity=pl.col("perplexity").median(), facts=pl.col("fact_id").n_unique())
    )
    kept = (
        normalised.filter(pl.col("measurable") & (pl.col("editor") != UNEDITED))
        .join(pure, on="dataset", how="inner", maintain_order="left")
        .group_by(["editor", "question_type", "edits", "dataset", "seed"], maintain_order=True)
        .agg(pl.col("normalised").mean())
    )
    if kept["question_type"].n_unique() < 2:
        return pl.DataFrame()
    means = kept.group_by(["editor", "question_type", "edits"], maintain_order=True).agg(
        value=pl.col("normalised").mean(),
        stderr=(pl.col("normalised").var(ddof=1) / pl.len()).sqrt(),
        chains=pl.len(),
    )
    means = means.filter(pl.col("question_type").n_unique().over("editor") > 1)
    return means.join(surprise, on="question_type", how="left", maintain_order="left")


def questions_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per editor: what is left of the abilities over edits, one line per form of the question.

    Raises:
        CollateralError: the model's data sets do not ask in two forms.
    """
    points = question_points(tables)
    if points.is_empty():
        raise no_rows_error("objectives")
    values = [*points["value"].to_list(), 1.0]
    room = 0.08 * (max(values) - min(values)) + 0.01
    domain = (min(values) - room, max(values) + room)  # one for all panels
    panels = [
        Panel(
            name=f"question_{index}",
            rows=points.filter(pl.col("editor") == editor).drop("editor"),
            title=editor,
            y_title="ability left (1: all)",
            y_format=".2~f",
            domain=domain,
            reference=1.0,
            tooltip=[
                alt.Tooltip("perplexity:Q", title="objective perplexity", format=".3~g"),
                alt.Tooltip("chains:Q"),
            ],
        )
        for index, editor in enumerate(order_editors(order, find_editors(points), only=True))
    ]
    types = points["question_type"].unique(maintain_order=True).to_list()
    key = "Solid rule: unedited model. Bars: ±1 standard error over chains."
    return draw_lines(
        panels, types, find_checkpoints(points), types, key, group="question_type", title="question"
    )


def questions_caption(tables: Tables) -> str:
    """Return the caption of the abilities by form of the question."""
    points = question_points(tables)
    common = select_common(points, "question_type")
    rows = (
        common.group_by("question_type", "edits", maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("perplexity").first())
        .sort("value")
        .to_dicts()
    )
    told = [
        f"{row['question_type']} {words.percent(row['value'])} (objective perplexity "
        f"{words.number(row['perplexity'], 3)})"
        for row in rows
    ]
    finding = "No checkpoint is common to all of them."
    if rows:
        finding = (
            f"After {rows[0]['edits']} edits, as the mean over editors, there is left: {'; '.join(told)}."
        )
    return (
        "What is left of the abilities (mean of those that are measurable; 1: the unedited score, 0: chance) by "
        "the form "
        f"of the question that is edited; {words.span(points['facts'].to_list())} facts a form. Bars: ±1 "
        f"standard "
        f"error over chains, where there are several. {finding}"
    )


def perplexity_points(tables: Tables) -> pl.DataFrame:
    """Return the points of `question_points` at each editor's last checkpoint that all forms share."""
    points = question_points(tables)
    if points.is_empty():
        return points
    groups = points["question_type"].n_unique()
    shared = points.filter(pl.col("question_type").n_unique().over("editor", "edits") == groups)
    final = shared.filter(pl.col("edits") == pl.col("edits").max().over("editor"))
    return add_bars(final)


def perplexity_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return what is left of the abilities against the perplexity of the edits' targets, one line per editor.

    Raises:
        CollateralError: the model's data sets do not ask in two forms at a common checkpoint.
    """
    points = perplexity_points(tables)
    if points.is_empty():
        raise no_rows_error("objectives")
    names = order_editors(order, find_editors(points))
    plot = Plot(
        name="objective_perplexity",
        rows=points.select("editor", "question_type", "edits", "perplexity", "value", "lower", "upper"),
        title="",
        value_title="ability left (1: all)",
        value_format=".2~f",
        references=[(1.0, "unedited")],
        tooltip=[
            alt.Tooltip("question_type:N", title="question"),
            alt.Tooltip("perplexity:Q", format=".4~g"),
            alt.Tooltip("edits:Q"),
        ],
    )
    x = alt.X(
        "perplexity:Q",
        title="objective perplexity, median over facts",
        scale=alt.Scale(type="log", nice=False, padding=16),
        axis=alt.Axis(format="~s", grid=False, tickCount=5),
    )
    key = "One point per form of question, at the last checkpoint that all forms share."
    return join_panels([draw_curves(plot, x, "editor", names, "editor", find_editors(points))], key, COLUMNS)


def perplexity_caption(tables: Tables) -> str:
    """Return the caption of the abilities against objective perplexity."""
    points = perplexity_points(tables)
    up = []
    for editor in find_editors(points):
        own = points.filter(pl.col("editor") == editor).sort("perplexity")["value"].to_list()
        up.append(own[-1] < own[0])
    types = points["question_type"].unique(maintain_order=True).to_list()
    return (
        "What is left of the abilities against how surprising the edits' targets are to the unedited model, by "
        "form of "
        f"question ({words.join(types)}); {words.span(points['edits'].to_list())} edits. Bars: ±1 standard "
        f"error "
        f"over chains, where there are several. The most surprising form leaves less than the least surprising "
        f"one for "
        f"{sum(up)} of {words.count(len(up), 'editor')}."
    )


FIGURES = (
    Figure(
        "questions",
        "Abilities by form of the question",
        "abilities",
        ("objectives", "normalised"),
        question_points,
        questions_chart,
        questions_caption,
        "data sets that ask in two forms or more, such as true-false and direct, with abilities evaluated",
        across=True,
        rank=90,
    ),
    Figure(
        "question-perplexity",
        "Abilities against the perplexity of the edits",
        "abilities",
        ("objectives", "normalised"),
        perplexity_points,
        perplexity_chart,
        perplexity_caption,
        "data sets that ask in two forms or more, evaluated at a common checkpoint",
        across=True,
        rank=100,
    ),
)
