"""Means with their standard errors: over seeds, over probes clustered by fact; all seeds together and each alone."""

from collections.abc import Callable, Sequence

import polars as pl

ALL_SEEDS = "all"


def seed_variance(column: str) -> pl.Expr:
    """Return the variance of a mean over seeds, s²/k; null for one seed."""
    return pl.col(column).var(ddof=1) / pl.len()


def average_seeds(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the mean of `value` over seeds by group, its standard error, and the number of seeds."""
    return rows.group_by(by, maintain_order=True).agg(
        pl.col("value").mean(), stderr=seed_variance("value").sqrt(), seeds=pl.len()
    )


def average_probes(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the mean of `value` over probes by group, with the standard error clustered by fact.

    se² = F/(F-1) · Σ_f (Σ_{i∈f} (x_i - x̄))² / N², for N probes of F facts: the probes of one fact are not
    independent. Null for a single fact. (Liang and Zeger 1986, for a mean.)
    """
    centred = rows.drop_nulls("value").with_columns(
        residual=pl.col("value") - pl.col("value").mean().over(by), mean=pl.col("value").mean().over(by)
    )
    facts = centred.group_by([*by, "fact_id"], maintain_order=True).agg(
        pl.col("mean").first(), residual=pl.col("residual").sum(), probes=pl.len()
    )
    correction = pl.when(pl.len() > 1).then(pl.len() / (pl.len() - 1)).otherwise(None)
    return facts.group_by(by, maintain_order=True).agg(
        value=pl.col("mean").first(),
        stderr=(correction * pl.col("residual").pow(2).sum()).sqrt() / pl.col("probes").sum(),
        n=pl.col("probes").sum(),
        facts=pl.len(),
    )


def split_seeds(table: pl.DataFrame, points: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Return the points of all seeds together (seed "all"), then of each seed alone where there are several.

    Rows without a seed, as the unedited model's, count for every seed.
    """
    if table.is_empty():
        return pl.DataFrame()
    whole = points(table).with_columns(seed=pl.lit(ALL_SEEDS))
    found = table["seed"].drop_nulls().unique().sort().to_list() if "seed" in table.columns else []
    if len(found) < 2:
        return whole
    own = [
        points(table.filter(pl.col("seed").is_null() | (pl.col("seed") == seed))).with_columns(
            seed=pl.lit(str(seed))
        )
        for seed in found
    ]
    return pl.concat([whole, *own], how="diagonal_relaxed")


def select_all_seeds(points: pl.DataFrame) -> pl.DataFrame:
    """Return the points of all seeds together, without the column that says so."""
    if "seed" not in points.columns:
        return points
    return points.filter(pl.col("seed") == ALL_SEEDS).drop("seed")


def count_seeds(points: pl.DataFrame) -> int:
    """Return over how many seeds the points are means, at most."""
    return int(points["seeds"].to_numpy().max())


def add_bars(points: pl.DataFrame) -> pl.DataFrame:
    """Return the points with `lower` and `upper` at every row: the interval known, else value ± standard error."""
    error = pl.col("stderr").fill_null(0.0)
    low, high = pl.col("value") - error, pl.col("value") + error
    if "lower" in points.columns:
        low, high = pl.col("lower").fill_null(low), pl.col("upper").fill_null(high)
    return points.with_columns(lower=low, upper=high)
