"""Has an edited model collapsed? Signs in its scores and answers, and the first checkpoint with one. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from collateral.analysis.tables.collect import KEY, UNEDITED, is_above_chance, is_perplexity

CHAIN = ("model", "dataset", "seed", "editor")
SIGN_SCHEMA = {**KEY, "suite": pl.String, "task": pl.String, "reason": pl.String}
COLLAPSE_SCHEMA = {
    **KEY,
    "collapsed": pl.Boolean,
    "first": pl.Boolean,
    "reasons": pl.String,
    "evaluated": pl.Boolean,
}
_TASK = ("suite", "task")
FEWEST_ITEMS = 10  # of which the same answer to nearly all says something


def find_signs(abilities: pl.DataFrame, items: pl.DataFrame, settings: Mapping[str, Any]) -> pl.DataFrame:
    """Return one row for each sign of collapse: the checkpoint, the suite, the task, and the reason in words.

    not finite           a metric or an item's score is not a finite number
    perplexity           it is at least `perplexity_ratio` times the unedited model's
    one answer           a share of at least `one_answer` of the items gets one and the same answer, which is not
                         so in the unedited model; at least 10 items
    below chance         every task that the unedited model solves above chance, by two standard errors, is at or
                         below chance; the task is the first of them

    Args:
        abilities: as `collect_abilities` returns it, the unedited model's rows included.
        items: as `collect_items` returns it.
        settings: `perplexity_ratio`, `one_answer`.
    """
    edited, before = _split(abilities)
    found = [
        _not_finite(edited, items),
        _perplexity(edited, before, settings["perplexity_ratio"]),
        _one_answer(items, settings["one_answer"]),
        _below_chance(edited, before),
    ]
    kept = [rows.select(pl.col(name).cast(kind) for name, kind in SIGN_SCHEMA.items()) for rows in found]
    return pl.concat(kept).unique(maintain_order=True)


def _split(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of edited models, and those of the unedited ones."""
    return table.filter(pl.col("editor") != UNEDITED), table.filter(pl.col("editor") == UNEDITED)


def _with_unedited(
    edited: pl.DataFrame, before: pl.DataFrame, on: Sequence[str], *columns: str
) -> pl.DataFrame:
    own = before.select("model", *on, *(pl.col(name).alias(f"unedited_{name}") for name in columns))
    return edited.join(own, on=["model", *on], how="inner", maintain_order="left")


def _not_finite(edited: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    scored = _split(items)[0].rename({"score": "value"})
    rows = pl.concat([frame.select(*KEY, *_TASK, "metric", "value") for frame in (edited, scored)])
    return rows.filter(~pl.col("value").is_finite()).with_columns(
        reason=pl.format("{} of {} is not finite", "metric", "task")
    )


def _perplexity(edited: pl.DataFrame, before: pl.DataFrame, ratio: float) -> pl.DataFrame:
    named = [metric for metric in edited["metric"].unique() if is_perplexity(metric)]
    both = _with_unedited(edited, before, [*_TASK, "metric"], "value").filter(pl.col("metric").is_in(named))
    return both.filter(pl.col("value") >= ratio * pl.col("unedited_value")).with_columns(
        reason=pl.format(
            "{} of {} is {} times the unedited model's",
            "metric",
            "task",
            (pl.col("value") / pl.col("unedited_value")).map_elements(lambda own: f"{own:.3g}", pl.String),
        )
    )


def _one_answer(items: pl.DataFrame, share: float) -> pl.DataFrame:
    answered = items.filter(pl.col("answer").is_not_null()).unique(
        [*KEY, *_TASK, "doc_id"], keep="first", maintain_order=True
    )
    counted = answered.group_by([*KEY, *_TASK], maintain_order=True).agg(
        most=pl.col("answer").unique_counts().max() / pl.len(), n=pl.len()
    )
    edited, before = _split(counted)
    both = _with_unedited(edited, before, _TASK, "most")
    alike = (pl.col("n") >= FEWEST_ITEMS) & (pl.col("most") >= share) & (pl.col("unedited_most") < share)
    return both.filter(alike).with_columns(
        reason=pl.format(
            "one answer to {}% of the items of {}", (100 * pl.col("most")).round(0).cast(pl.Int32), "task"
        )
    )


def _below_chance(edited: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    scored = edited.filter(pl.col("primary") & pl.col("higher_is_better") & pl.col("chance").is_not_null())
    both = _with_unedited(scored, before, [*_TASK, "metric"], "value", "stderr")
    able = both.filter(
        is_above_chance(pl.col("unedited_value"), pl.col("unedited_stderr").fill_null(0.0), pl.col("chance"))
    )
    return (
        able.group_by(KEY.keys(), maintain_order=True)
        .agg(
            pl.col("suite").first(),
            pl.col("task").first(),
            gone=(pl.col("value") <= pl.col("chance")).all(),
            tasks=pl.col("task").str.join(", "),
        )
        .filter(pl.col("gone"))
        .with_columns(reason=pl.format("at or below chance: {}", "tasks"))
    )


def find_collapses(
    abilities: pl.DataFrame, items: pl.DataFrame, skipped: pl.DataFrame, settings: Mapping[str, Any]
) -> pl.DataFrame:
    """Return one row per checkpoint that was evaluated or left out for a collapse: has its chain collapsed by then?

    Columns: collapsed (at or before this checkpoint), first (it is the first that shows a sign), reasons (its own
    signs, or where the chain collapsed), evaluated.

    Args:
        abilities: as `collect_abilities` returns it.
        items: as `collect_items` returns it.
        skipped: as `collect_skipped` returns it.
        settings: `perplexity_ratio`, `one_answer`.
    """
    told = (
        find_signs(abilities, items, settings)
        .group_by(KEY.keys(), maintain_order=True)
        .agg(reasons=pl.col("reason").unique(maintain_order=True).str.join("; "))
    )
    seen = _split(abilities)[0].select(KEY.keys()).unique(maintain_order=True)
    left = skipped.select(KEY.keys()).unique(maintain_order=True).join(seen, on=list(KEY), how="anti")
    rows = pl.concat([seen.with_columns(evaluated=True), left.with_columns(evaluated=False)]).join(
        told, on=list(KEY), how="left"
    )
    start = (
        pl.when(pl.col("reasons").is_not_null() | ~pl.col("evaluated"))
        .then(pl.col("edits"))
        .min()
        .over(CHAIN)
    )
    return (
        rows.with_columns(start=start)
        .with_columns(
            collapsed=(pl.col("edits") >= pl.col("start")).fill_null(False),
            first=(pl.col("edits") == pl.col("start")).fill_null(False),
            reasons=pl.when(pl.col("evaluated"))
            .then(pl.col("reasons").fill_null(""))
            .otherwise(pl.format("not evaluated: collapsed at {} edits", "start")),
        )
        .sort(*CHAIN, "edits")
        .select(pl.col(name).cast(kind) for name, kind in COLLAPSE_SCHEMA.items())
    )


def judge_chain(
    abilities: pl.DataFrame,
    items: pl.DataFrame,
    previous: Mapping[str, Any] | None,
    edits: int,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `collapsed_at` (number of edits, or None) and `reasons` of a chain up to one checkpoint.

    Args:
        abilities: of this checkpoint and of the unedited model.
        items: of both.
        previous: the verdict at the checkpoint before, if there is one: a collapsed chain stays collapsed.
        edits: of this checkpoint.
        settings: `perplexity_ratio`, `one_answer`.
    """
    if previous and previous["collapsed_at"] is not None:
        return dict(previous)
    reasons = find_signs(abilities, items, settings)["reason"].unique(maintain_order=True).to_list()
    return {"collapsed_at": edits if reasons else None, "reasons": reasons}
