"""What is left of each ability, between chance (0) and the unedited model (1). Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.analysis.statistics.pairing import BITS, PairedMetric
from collateral.analysis.tables.collect import is_above_chance
from collateral.analysis.tables.schema import TABLES

Numbers = npt.NDArray[np.float64]

SCHEMA = TABLES["normalised"].schema


def is_measurable(about: Mapping[str, Any], logarithmic: bool) -> bool:
    """Return whether the unedited model is better than chance by two standard errors, so that harm could show.

    Perplexities have no chance level, and neither has a task that states none.

    Args:
        about: `value`, `stderr`, `chance`, `higher_is_better` of the unedited model.
        logarithmic: the metric is a perplexity.
    """
    chance = about["chance"]
    if logarithmic or chance is None:
        return True
    sign = 1.0 if about["higher_is_better"] else -1.0
    return bool(is_above_chance(sign * about["value"], about["stderr"] or 0.0, sign * chance))


def compute_share_left(values: Numbers, unedited: Numbers, one: PairedMetric) -> Numbers:
    """Return what is left of an ability: (value - chance) / (unedited - chance); of perplexities unedited / value.

    1: as before; 0: at chance; below 0: under it. Bits per byte are taken as the perplexities that they stand for. A
    score that states no chance level counts from 0, and one that falls with ability as a perplexity does. NaN where
    the unedited model is not on the better side of chance.
    # ASSUME: an edited model whose score is not a number has nothing left.

    Args:
        values: of the edited models.
        unedited: of the unedited one, of the same shape or one number.
        one: what the metric is.
    """
    chance, better = one.about["chance"], 1.0 if one.about["higher_is_better"] else -1.0
    with np.errstate(all="ignore"):
        if one.kind == BITS:
            left = np.exp2(unedited - values)
        elif one.logarithmic or (chance is None and better < 0):
            left = unedited / values
        else:
            floor = 0.0 if chance is None else float(chance)
            room = unedited - floor
            left = np.where(room * better > 0, (values - floor) / room, np.nan)
    return np.where(np.isnan(values), 0.0, left)


def carry_forward(table: pl.DataFrame, collapses: pl.DataFrame | None) -> pl.DataFrame:
    """Return the normalised abilities, a collapsed chain's carried on to the checkpoints not evaluated any more.

    # ASSUME: a collapsed model does not recover; without these rows a mean over seeds would be that of the survivors.
    """
    if collapses is None or collapses.is_empty() or table.is_empty():
        return table
    chain = ["model", "dataset", "seed", "editor"]
    later = collapses.filter(~pl.col("evaluated")).select(*chain, later=pl.col("edits"))
    if later.is_empty():
        return table
    rows = (
        table.join(later, on=chain, how="inner")
        .filter(pl.col("edits") < pl.col("later"))
        .filter(pl.col("edits") == pl.col("edits").max().over([*chain, "suite", "task", "metric", "later"]))
    )
    return pl.concat([table, rows.with_columns(edits="later").select(table.columns)])


def normalize_abilities(metrics: Sequence[PairedMetric]) -> pl.DataFrame:
    """Return one row per checkpoint of an edited model and primary metric.

    normalised is null where the ability was at chance before editing (measurable is false).
    """
    names = ("suite", "ability", "task", "metric", "chance")
    tables = []
    for one in metrics:
        usable = is_measurable(one.about, one.logarithmic)
        left = compute_share_left(
            one.checkpoints["value"].to_numpy(), np.array(float(one.about["value"])), one
        )
        tables.append(
            one.checkpoints.with_columns(
                *(pl.lit(one.about[name], dtype=SCHEMA[name]).alias(name) for name in names),
                pl.lit(one.about["value"], dtype=pl.Float64).alias("unedited"),
                pl.Series("normalised", left if usable else [None] * len(left), dtype=pl.Float64).fill_nan(
                    None
                ),
                pl.lit(usable).alias("measurable"),
            ).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        )
    return pl.concat(tables) if tables else pl.DataFrame(schema=SCHEMA)
