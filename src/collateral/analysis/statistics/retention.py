"""What is left of earlier edits at later checkpoints: by the number of edits since. Torch-free."""

import polars as pl

from collateral.analysis.tables.collect import KEY, UNEDITED
from collateral.analysis.tables.schema import TABLES

SCHEMA = TABLES["retention"].schema
HOWS = {"teacher-forced": "token_accuracy", "generation": "generated_match"}
PROBE = ("model", "dataset", "seed", "editor", "fact_id", "probe")
_STARTS = [0, 1, *(step * 10**power for power in range(5) for step in (5, 10, 20))]
_AT_ONCE = -1  # age of the rows that hold the score right after each edit


def select_reliability(efficacy: pl.DataFrame, when: str) -> pl.DataFrame:
    """Return the probes of the edits themselves of edited models: key, position, fact_id, probe, and both scores.

    Args:
        efficacy: the table of that name.
        when: `now`, at a checkpoint, or `after_edit`, once for each edit.
    """
    columns = (*KEY, "position", "fact_id", "probe")
    if efficacy.is_empty():
        schema = {**KEY, "position": pl.Int32, "fact_id": pl.String, "probe": pl.Int32}
        return pl.DataFrame(schema={**schema, **dict.fromkeys(HOWS, pl.Float64)})
    return efficacy.filter(
        (pl.col("kind") == "reliability") & (pl.col("when") == when) & (pl.col("editor") != UNEDITED)
    ).select(*columns, **{how: pl.col(column).cast(pl.Float64) for how, column in HOWS.items()})


def select_first_scores(efficacy: pl.DataFrame) -> pl.DataFrame:
    """Return each edit's probes right after it, one row a probe."""
    return (
        select_reliability(efficacy, "after_edit")
        .sort("edits", maintain_order=True)
        .unique(PROBE, keep="first", maintain_order=True)
    )


def measure_retention(efficacy: pl.DataFrame, editors: pl.DataFrame | None) -> pl.DataFrame:
    """Return the mean score of earlier edits at each checkpoint, by age: the D4S paper's current evaluation.

    age: edits made after the fact's own operation, in bins 0, 1-4, 5-9, 10-19, 20-49, 50-99, and so on; facts of one
    batch are edited at once and have one age. Rows with age_low = age_high = -1 hold the score right after each edit,
    over the edits up to that checkpoint: its original evaluation. Edits that an unstable operation left out count as
    they are probed. stderr is clustered by fact, over all seeds; null for a single fact.

    Args:
        efficacy: the table of that name.
        editors: the table of that name, for batch sizes; without it, one fact at a time.
    """
    now = _add_age(select_reliability(efficacy, "now"), editors)
    checkpoints = now.select(KEY.keys()).unique(maintain_order=True)
    then = (
        select_first_scores(efficacy)
        .drop("edits")
        .join(checkpoints, on=["model", "dataset", "seed", "editor"], how="inner", maintain_order="left")
        .filter(pl.col("position") <= pl.col("edits"))
        .with_columns(age_low=pl.lit(_AT_ONCE, pl.Int32), age_high=pl.lit(_AT_ONCE, pl.Int32))
    )
    rows = pl.concat([now.select(then.columns), then]).unpivot(
        list(HOWS),
        index=[*KEY, "age_low", "age_high", "fact_id"],
        variable_name="how",
        value_name="value",
    )
    return _average_clustered(rows.drop_nulls("value"))


def _add_age(rows: pl.DataFrame, editors: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows with the bin of their age."""
    size = pl.lit(1, pl.Int32)
    if editors is not None and not editors.is_empty():
        rows = rows.join(
            editors.select("editor", "batch_size"), on="editor", how="left", maintain_order="left"
        )
        size = pl.col("batch_size").fill_null(1)
    done = ((pl.col("position") - 1) // size + 1) * size  # edits up to the end of the fact's own operation
    age = pl.max_horizontal(pl.col("edits") - done, pl.lit(0))
    low, high = pl.lit(_STARTS[-1]), pl.lit(2**31 - 1)
    for start, after in zip(reversed(_STARTS[:-1]), reversed(_STARTS[1:]), strict=True):
        inside = age < after
        low = pl.when(inside).then(pl.lit(start)).otherwise(low)
        high = pl.when(inside).then(pl.lit(after - 1)).otherwise(high)
    return rows.with_columns(age_low=low.cast(pl.Int32), age_high=high.cast(pl.Int32))


def _average_clustered(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the mean of each cell; se² = F/(F-1) Σ_f (Σ_{i∈f} (x_i - x̄))² / N², for N probes of F facts."""
    by = ["model", "dataset", "editor", "edits", "age_low", "age_high", "how"]
    centred = rows.with_columns(
        mean=pl.col("value").mean().over(by), seeds=pl.col("seed").n_unique().over(by)
    )
    facts = centred.group_by([*by, "fact_id"]).agg(
        pl.col("mean", "seeds").first(), off=(pl.col("value") - pl.col("mean")).sum(), probes=pl.len()
    )
    correction = pl.when(pl.len() > 1).then(pl.len() / (pl.len() - 1)).otherwise(None)
    return (
        facts.group_by(by)
        .agg(
            value=pl.col("mean").first(),
            stderr=(correction * pl.col("off").pow(2).sum()).sqrt() / pl.col("probes").sum(),
            n=pl.col("probes").sum(),
            seeds=pl.col("seeds").first(),
        )
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort(by)
    )
