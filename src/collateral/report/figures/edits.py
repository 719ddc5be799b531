"""Did the edits take, and are they still there: reliability, generalization, locality, retention."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.means import average_probes, select_all_seeds, split_seeds
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

KINDS = ("reliability", "generalization", "locality")
MEASURES = {
    "teacher-forced": {
        "reliability": "token_accuracy",
        "generalization": "token_accuracy",
        "locality": "token_agreement",
    },
    "probability": dict.fromkeys(KINDS, "prefers_target"),
    "generation": {
        "reliability": "generated_match",
        "generalization": "generated_match",
        "locality": "generated_agreement",
    },
}
WHEN = {"after_edit": "right after its edit", "now": "at the checkpoint"}


def efficacy_points(tables: Tables) -> pl.DataFrame:
    """Return (kind, how, editor, edits, value, stderr, n, facts, seed) of the probes at each checkpoint.

    The unedited model's have 0 edits.


    reliability, generalization: mean of token_accuracy, prefers_target, generated_match.
    locality: mean of token_agreement, prefers_target, generated_agreement.
    """
    return split_seeds(get_table(tables, "efficacy"), _now)


def _now(efficacy: pl.DataFrame) -> pl.DataFrame:
    now = efficacy.filter((pl.col("when") == "now") | (pl.col("editor") == UNEDITED))
    return average_probes(score_probes(now), ["kind", "how", "editor", "edits"])


def score_probes(probes: pl.DataFrame) -> pl.DataFrame:
    """Return (editor, edits, fact_id, kind, how, value): each probe by the measures of its kind."""
    parts = [
        probes.filter(pl.col("kind") == kind).select(
            "editor",
            "edits",
            "fact_id",
            kind=pl.lit(kind),
            how=pl.lit(how),
            value=pl.col(columns[kind]).cast(pl.Float64),
        )
        for kind in KINDS
        for how, columns in MEASURES.items()
    ]
    return pl.concat(parts)


def efficacy_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return reliability, generalization, locality (rows) by teacher-forced, probability, generation (columns).

    Raises:
        CollateralError: the table has no edited rows measured at a checkpoint.
    """
    points = efficacy_points(tables)
    if points.is_empty() or not find_checkpoints(points):
        raise no_rows_error("efficacy")
    present, edits = find_editors(points), find_checkpoints(points)
    panels = []
    for index, ((kind, how), rows) in enumerate(
        points.partition_by(["kind", "how"], as_dict=True, include_key=False, maintain_order=True).items()
    ):
        reference = select_all_seeds(rows).filter(pl.col("editor") == UNEDITED)
        panels.append(
            Panel(
                name=f"efficacy_{index}",
                rows=rows.filter(pl.col("editor") != UNEDITED),
                title=str(kind),
                subtitle=[str(how)],
                y_format=".0%",
                domain=(-0.03, 1.03),
                reference=reference["value"].mean() if reference.height else None,  # type: ignore[arg-type]
                tooltip=[alt.Tooltip("n:Q", title="probes"), alt.Tooltip("facts:Q")],
            )
        )
    key = "Solid rule: unedited model. Bars: ±1 standard error, clustered by fact."
    return draw_lines(panels, order_editors(order, present), edits, present, key)


def efficacy_finding(tables: Tables) -> str:
    """Return one sentence: free-generation reliability and locality of the editors at the last checkpoint."""
    rows = select_last(select_all_seeds(efficacy_points(tables))).filter(pl.col("how") == "generation")
    reliability = rows.filter(pl.col("kind") == "reliability").to_dicts()
    if not reliability:
        return "No edit was asked for by free generation."
    ranked = sorted(reliability, key=lambda row: -row["value"])
    locality = {row["editor"]: row["value"] for row in rows.filter(pl.col("kind") == "locality").to_dicts()}

    def told(row: words.Row) -> str:
        kept = locality.get(row["editor"])
        aside = "" if kept is None else f", locality {words.percent(kept)}"
        return f"{row['editor']} {words.percent(row['value'])}{aside}"

    shown = ranked if len(ranked) <= 4 else [ranked[0], ranked[-1]]
    return (
        f"Share of the edits that the model states in free generation after {ranked[0]['edits']} edits"
        f"{'' if len(shown) == len(ranked) else ', highest and lowest'}: {'; '.join(map(told, shown))}."
    )


def efficacy_caption(tables: Tables) -> str:
    """Return the caption of the efficacy figure."""
    rows = select_all_seeds(efficacy_points(tables))
    final = select_last(rows)
    counts = [
        f"{words.span(final.filter(pl.col('kind') == kind)['n'].to_list())} {kind}"
        for kind in KINDS
        if not final.filter(pl.col("kind") == kind).is_empty()
    ]
    return (
        f"Did the edits take, {words.after(find_checkpoints(rows))}? Probes at the last checkpoint: "
        f"{words.join(counts)}. Bars: ±1 standard error, clustered by fact "
        f"({words.span(final['facts'].to_list())} facts). "
        f"{efficacy_finding(tables)}"
    )


def retention_points(tables: Tables) -> pl.DataFrame:
    """Return (editor, edits, when, value, …, seed): teacher-forced reliability of the same edits, then and now.

    `now` is at the checkpoint; `after_edit` is right after each edit. Only probes measured at both count.
    """
    return split_seeds(get_table(tables, "efficacy"), _then_and_now)


def _then_and_now(efficacy: pl.DataFrame) -> pl.DataFrame:
    key = ["editor", "seed", "fact_id", "probe"]
    rows = efficacy.filter(
        (pl.col("kind") == "reliability")
        & (pl.col("editor") != UNEDITED)
        & pl.col("token_accuracy").is_not_null()
    )
    then = (
        rows.filter(pl.col("when") == "after_edit")
        .sort("edits", maintain_order=True)
        .unique(key, keep="first", maintain_order=True)
        .select(*key, after_edit="token_accuracy")
    )
    both = rows.filter(pl.col("when") == "now").join(
        then, on=key, how="inner", nulls_equal=True, maintain_order="left"
    )
    long = both.select("editor", "edits", "fact_id", "after_edit", now="token_accuracy").unpivot(
        ["after_edit", "now"], index=["editor", "edits", "fact_id"], variable_name="when"
    )
    return average_probes(long, ["editor", "edits", "when"])


def retention_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per editor: reliability of the same edits right after each edit and at the checkpoint.

    Raises:
        CollateralError: no probe was measured at both times.
    """
    points = retention_points(tables)
    if points.is_empty():
        raise no_rows_error("efficacy")
    edits = find_checkpoints(points)
    told = points.with_columns(pl.col("when").replace_strict(WHEN))
    panels = [
        Panel(
            name=f"retention_{index}",
            rows=told.filter(pl.col("editor") == editor).drop("editor"),
            title=editor,
            y_title="reliability, teacher-forced",
            y_format=".0%",
            domain=(-0.03, 1.03),
            tooltip=[alt.Tooltip("n:Q", title="probes"), alt.Tooltip("facts:Q")],
        )
        for index, editor in enumerate(order_editors(order, find_editors(points), only=True))
    ]
    key = "The same edits, measured twice. Bars: ±1 standard error, clustered by fact."
    measured_at = list(WHEN.values())
    return draw_lines(panels, measured_at, edits, measured_at, key, group="when", title="measured")


def retention_caption(tables: Tables) -> str:
    """Return the caption of the retention figure."""
    rows = select_all_seeds(retention_points(tables))
    final = select_last(rows)
    wide = final.pivot(on="when", index=["editor", "edits", "n"], values="value").to_dicts()
    worst = max(wide, key=lambda row: row["after_edit"] - row["now"])
    lost = worst["after_edit"] - worst["now"]
    finding = (
        f"{worst['editor']} loses most: {words.percent(worst['after_edit'])} right after each edit, "
        f"{words.percent(worst['now'])} after {worst['edits']} edits ({words.points(-lost)} points)."
        if lost > 0
        else f"No editor loses anything up to edit {worst['edits']}."
    )
    return (
        "Are earlier edits still there? Teacher-forced reliability of the same edits right after each one and at "
        f"the checkpoint; n = {words.span(final['n'].to_list())} probes at the last checkpoint. Bars: ±1 "
        f"standard "
        f"error, clustered by fact. {finding}"
    )


FIGURES = (
    Figure(
        "efficacy",
        "Reliability, generalization, locality",
        "edits",
        ("efficacy",),
        efficacy_points,
        efficacy_chart,
        efficacy_caption,
        "the probes of edited checkpoints",
        rank=110,
    ),
    Figure(
        "retention",
        "Retention of earlier edits",
        "edits",
        ("efficacy",),
        retention_points,
        retention_chart,
        retention_caption,
        "probes right after each edit and again at a checkpoint",
        rank=120,
    ),
)
