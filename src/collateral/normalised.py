"""What is left of each ability, between chance (0) and the unedited model (1). Torch-free."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.pairing import BITS, Measured
from collateral.tables import KEY

Numbers = npt.NDArray[np.float64]

SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    **KEY,
    "suite": pl.String,
    "ability": pl.String,
    "task": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "unedited": pl.Float64,
    "chance": pl.Float64,
    "normalised": pl.Float64,
    "measurable": pl.Boolean,
}


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
    doubt = 2 * (about["stderr"] or 0.0)
    value = float(about["value"])
    return bool(value - doubt > chance if about["higher_is_better"] else value + doubt < chance)


def share_left(values: Numbers, about: Mapping[str, Any], kind: str, logarithmic: bool) -> Numbers:
    """Return what is left of an ability: (value - chance) / (unedited - chance); of perplexities unedited / value.

    1: as before; 0: at chance; below 0: under it. Bits per byte are taken as the perplexities that they stand for. A
    score that states no chance level counts from 0, and one that falls with ability as a perplexity does.
    # ASSUME: a perplexity that is not a number leaves nothing.

    Args:
        values: of the edited models.
        about: of the unedited one: `value`, `chance`, `higher_is_better`.
        kind: of `Measured`.
        logarithmic: the metric is a perplexity.
    """
    unedited, chance = float(about["value"]), about["chance"]
    with np.errstate(all="ignore"):
        if kind == BITS:
            left = np.exp2(unedited - values)
        elif logarithmic or (chance is None and not about["higher_is_better"]):
            left = unedited / values
        else:
            floor = 0.0 if chance is None else float(chance)
            left = (
                (values - floor) / (unedited - floor)
                if unedited != floor
                else np.full(values.shape, math.nan)
            )
    return np.where(np.isnan(left) & np.isnan(values), 0.0, left)


def normalised(metrics: Sequence[Measured]) -> pl.DataFrame:
    """Return one row per checkpoint of an edited model and primary metric.

    normalised is null where the ability was at chance before editing (measurable is false).
    """
    names = ("suite", "ability", "task", "metric", "chance")
    tables = []
    for one in metrics:
        usable = is_measurable(one.about, one.logarithmic)
        left = share_left(one.checkpoints["value"].to_numpy(), one.about, one.kind, one.logarithmic)
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
