"""The papers' tables as frames: edit success (D4S), abilities before and after, single edits (RECT)."""

import polars as pl

from collateral.report.charts.means import average_probes, select_all_seeds
from collateral.report.charts.rows import UNEDITED, Tables, get_table, select_each_last
from collateral.report.figures.abilities import ability_points
from collateral.report.figures.edits import KINDS, score_probes

ORIGINAL, CURRENT = "original", "current"
NAMES = {"reliability": "efficacy", "generalization": "paraphrase", "locality": "specificity"}


def tabulate_edit_success(tables: Tables, how: str = "teacher-forced") -> pl.DataFrame:
    """Return (editor, edits, evaluation, efficacy, paraphrase, specificity, average, facts) by checkpoint.

    Shares. evaluation: "original" counts each edit right after it was made, for all edits up to the checkpoint;
    "current" asks for the same edits at the checkpoint, as the D4S paper does. average: of all three.

    Args:
        tables: the study's own, with `efficacy`.
        how: "teacher-forced", "probability" or "generation".
    """
    efficacy = get_table(tables, "efficacy")
    if efficacy.is_empty():
        return pl.DataFrame()
    edited = efficacy.filter(pl.col("editor") != UNEDITED)
    now = edited.filter(pl.col("when") == "now")
    steps = edited.select("editor", "edits", "seed").unique(maintain_order=True)
    then = (
        edited.filter(pl.col("when") == "after_edit")
        .drop("edits")
        .join(steps, on=["editor", "seed"], how="inner", nulls_equal=True, maintain_order="left")
    )
    parts = [
        average_probes(
            score_probes(rows).filter(pl.col("how") == how), ["kind", "editor", "edits"]
        ).with_columns(evaluation=pl.lit(evaluation))
        for evaluation, rows in (
            (ORIGINAL, then.filter(pl.col("position") <= pl.col("edits"))),
            (CURRENT, now),
        )
    ]
    means = pl.concat([part for part in parts if not part.is_empty()]).filter(pl.col("kind").is_in(KINDS))
    key = ["editor", "edits", "evaluation"]
    wide = means.with_columns(
        pl.col("kind").replace_strict(NAMES), facts=pl.col("facts").max().over(key)
    ).pivot(
        on="kind", on_columns=list(NAMES.values()), index=[*key, "facts"], values="value", maintain_order=True
    )
    three = [pl.col(name) for name in NAMES.values()]
    return wide.select(*key, *three, average=sum(three, pl.lit(0.0)) / len(three), facts="facts").sort(
        "evaluation", "edits", descending=[True, False], maintain_order=True
    )


def tabulate_before_and_after(tables: Tables) -> pl.DataFrame:
    """Return a row per editor at its last checkpoint, the unedited model first; per task a column and its change.

    Means over seeds of the primary metric: `{task} ({metric})` holds it, `change of …` what editing added.
    """
    points = select_all_seeds(ability_points(tables))
    if points.is_empty():
        return pl.DataFrame()
    plain = pl.format("{} ({})", "task", "metric")
    column = plain if points["suite"].n_unique() == 1 else pl.format("{}: {}", "suite", plain)
    shown = pl.concat([points.filter(pl.col("editor") == UNEDITED), select_each_last(points)]).with_columns(
        column=column
    )
    columns = shown["column"].unique(maintain_order=True).to_list()
    index = ["editor", "edits"]
    values = shown.pivot(on="column", index=index, values="value", maintain_order=True)
    changes = shown.pivot(on="column", index=index, values="change", maintain_order=True)
    renamed = changes.rename({name: f"change of {name}" for name in columns})
    both = values.join(renamed, on=index, how="left", maintain_order="left")
    return both.select(*index, *(name for column in columns for name in (column, f"change of {column}")))


def tabulate_single_edits(tables: Tables) -> pl.DataFrame:
    """Return (editor, quantile, mean, sd, edits): quantiles of δ = |ΔW| / |W| over edits that each start from W₀.

    Of several matrices of an edit, their mean. sd is over the edits; weights that are zero have no δ.
    """
    table = get_table(tables, "single-weights")
    if table.is_empty():
        return pl.DataFrame()
    return (
        table.filter((pl.col("statistic") == "delta_quantile") & pl.col("value").is_finite())
        .group_by(["editor", "seed", "fact_id", "threshold"], maintain_order=True)
        .agg(pl.col("value").mean())
        .group_by(["editor", "threshold"], maintain_order=True)
        .agg(mean=pl.col("value").mean(), sd=pl.col("value").std(ddof=1), edits=pl.len())
        .rename({"threshold": "quantile"})
        .sort("editor", "quantile", maintain_order=True)
    )
