"""Which change in the weights goes with harm: rank correlations over the checkpoints of a study. Torch-free."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.analysis.statistics.inference import Terms
from collateral.analysis.statistics.tradeoffs import average_abilities, select_common_tasks
from collateral.analysis.tables.collect import KEY
from collateral.analysis.tables.schema import TABLES

Numbers = npt.NDArray[np.float64]

SCHEMA = TABLES["predictors"].schema
MEAN = "mean"
NO_MATRIX = "none"  # `parameter` of an editor that changed no weight
_CHAIN = ("model", "dataset", "seed", "editor")
_CHECKPOINT = list(KEY)

# How the values of several edited matrices become one number of a checkpoint.
SUMS = ("manhattan", "l1_delta")  # of elements: they add up
ROOTS = ("fro_delta", "relative_fro")  # of squares: the root of the sum of squares
LARGEST = ("spectral_delta",)
SHARES = (
    "delta_share",
    "delta_quantile",
    "nonzero_share",
    "mean_abs_delta",
)  # weighted by number of elements
RATIOS = {
    "mean_abs": "weighted",
    "l1": "sum",
    "fro": "root",
    "spectral": "max",
    "condition": "max",
}  # after / before
FEWEST_CHAINS = 5  # to draw from, for an interval


def correlate_predictors(
    normalised: pl.DataFrame,
    weights: pl.DataFrame,
    drift: pl.DataFrame | None,
    objectives: pl.DataFrame | None,
    terms: Terms,
) -> pl.DataFrame:
    """Return Spearman's rho of each statistic with each harm, over the checkpoints of a study's chains.

    harm: 1 - normalised ability, of the mean over abilities that all checkpoints have (`mean`) or of one ability.
    dataset null: all data sets together. Chains (model, data set, seed, editor), not checkpoints, are resampled for
    the interval (percentiles) and for p, as the checkpoints of one chain rest on one another. p is twice the smaller
    share of resamples beyond 0, and at least 2 / (resamples + 1) and 2 / chains!, which is what a perfect order of so
    many chains has by chance. Null below five chains; rho is null where one of the two does not vary.

    Args:
        normalised: of `carry_forward`.
        weights: the table of that name.
        drift: the table of that name, if there is one.
        objectives: the table of that name, if there is one.
        terms: level, resamples, seed.
    """
    harm = compute_harms(normalised)
    statistics = pl.concat(
        [
            summarize_weights(weights).with_columns(source=pl.lit("weights")),
            summarize_drift(drift).with_columns(source=pl.lit("drift")),
            summarize_objectives(objectives, harm).with_columns(source=pl.lit("objectives")),
        ]
    )
    both = statistics.join(harm, on=_CHECKPOINT, how="inner").filter(pl.col("value").is_finite())
    rows = []
    for scope in (["model"], ["model", "dataset"]):
        by = [*scope, "source", "statistic", "harm"]
        for name, own in both.sort(*by, *_CHECKPOINT).group_by(by, maintain_order=True):
            told = {"dataset": None, **dict(zip(by, name, strict=True))}
            rows.append({**told, **_correlate(own, terms)})
    return pl.DataFrame(rows, schema=SCHEMA).sort("model", "dataset", "source", "harm", "statistic")


def compute_harms(normalised: pl.DataFrame) -> pl.DataFrame:
    """Return the key, `harm` (an ability, or `mean`) and `loss`, 1 - what is left of it."""
    mean = average_abilities(normalised).select(*KEY, harm=pl.lit(MEAN), loss=1 - pl.col("ability"))
    own = select_common_tasks(normalised).group_by([*KEY, "ability"]).agg(pl.col("normalised").mean())
    return pl.concat([mean, own.select(*KEY, harm="ability", loss=1 - pl.col("normalised"))])


def _select(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return table.filter(pl.col("statistic").is_in(names))


def summarize_weights(weights: pl.DataFrame) -> pl.DataFrame:
    """Return the key, `statistic` and `value`: one number of a checkpoint from those of its edited matrices.

    Distances over elements are summed, Frobenius norms added as squares, of spectral norms the largest counts, shares
    and quantiles of elements are means weighted by the number of elements, and so is any other statistic without
    weights. What is known before and after is their ratio, `fro_ratio`: of sums, of norms, or the largest of single
    ones. The threshold or quantile stands in the name. An editor that changed no matrix has distances 0 and ratios 1.
    The number of zero weights is one of the unedited matrices and no statistic of a change.
    """
    if weights.is_empty():
        return pl.DataFrame(schema={**KEY, "statistic": pl.String, "value": pl.Float64})
    told = weights.with_columns(
        size=pl.col("value")
        .filter(pl.col("statistic") == "l1_before")
        .first()
        .over([*_CHECKPOINT, "parameter"])
        / pl.col("value")
        .filter(pl.col("statistic") == "mean_abs_before")
        .first()
        .over([*_CHECKPOINT, "parameter"])
    ).with_columns(pl.col("size").fill_nan(None).fill_null(1.0))
    value, size = pl.col("value"), pl.col("size")
    changed = told.filter(pl.col("parameter") != NO_MATRIX)
    by = [*_CHECKPOINT, "statistic", "threshold"]
    weighted = (value * size).sum() / size.sum()
    sides = [f"{name}_{side}" for name in RATIOS for side in ("before", "after")]
    special = [*SUMS, *ROOTS, *LARGEST, *sides, "zero_weights"]
    single = pl.concat(
        [
            _select(changed, SUMS).group_by(by).agg(value.sum()),
            _select(changed, ROOTS).group_by(by).agg(value.pow(2).sum().sqrt()),
            _select(changed, LARGEST).group_by(by).agg(value.max()),
            changed.filter(~pl.col("statistic").is_in(special)).group_by(by).agg(weighted.alias("value")),
        ]
    ).with_columns(statistic=_name_statistic())
    own = pl.concat([single.select(*_CHECKPOINT, "statistic", "value"), _compute_ratios(changed)])
    still = told.filter(pl.col("parameter") == NO_MATRIX).select(_CHECKPOINT).unique()
    return pl.concat([own, _fill_unchanged(still, own)])


def _name_statistic() -> pl.Expr:
    """Return the statistic's name with its threshold or quantile."""
    number = pl.col("threshold").cast(pl.String)
    return (
        pl.when(pl.col("threshold").is_null())
        .then(pl.col("statistic"))
        .when(pl.col("statistic") == "delta_share")
        .then(pl.format("{} above {}", "statistic", number))
        .otherwise(pl.format("{} {}", "statistic", number))
    )


def _compute_ratios(changed: pl.DataFrame) -> pl.DataFrame:
    """Return after / before, of all edited matrices together."""
    value, size = pl.col("value"), pl.col("size")
    ways = {
        "sum": value.sum(),
        "weighted": (value * size).sum(),
        "root": value.pow(2).sum().sqrt(),
    }
    found = [changed.select(*_CHECKPOINT, "statistic", "value").clear()]
    for name, way in RATIOS.items():
        pair = [f"{name}_before", f"{name}_after"]
        if way == "max":
            matrices = _select(changed, pair).pivot(
                "statistic", index=[*_CHECKPOINT, "parameter"], values="value"
            )
            if not set(pair) <= set(matrices.columns):
                continue
            both = matrices.group_by(_CHECKPOINT).agg(value=(pl.col(pair[1]) / pl.col(pair[0])).max())
        else:
            totals = (
                _select(changed, pair).group_by([*_CHECKPOINT, "statistic"]).agg(ways[way].alias("value"))
            )
            sides = totals.pivot("statistic", index=_CHECKPOINT, values="value")
            if not set(pair) <= set(sides.columns):
                continue
            both = sides.select(*_CHECKPOINT, value=pl.col(pair[1]) / pl.col(pair[0]))
        found.append(both.select(*_CHECKPOINT, statistic=pl.lit(f"{name}_ratio"), value="value"))
    return pl.concat(found)


def _fill_unchanged(still: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """Return distances of 0 and ratios of 1 for the checkpoints without a changed matrix."""
    names = own.select("statistic").unique(maintain_order=True)
    zero = (
        "manhattan",
        "l1_",
        "fro_delta",
        "relative_fro",
        "spectral_delta",
        "delta_",
        "nonzero",
        "mean_abs_delta",
    )
    ratio = pl.col("statistic").str.ends_with("_ratio")
    distance = pl.any_horizontal(pl.col("statistic").str.starts_with(one) for one in zero)
    return (
        still.join(names, how="cross")
        .filter(ratio | distance)
        .with_columns(value=pl.when(ratio).then(1.0).otherwise(0.0))
        .select(*_CHECKPOINT, "statistic", "value")
    )


def summarize_drift(drift: pl.DataFrame | None) -> pl.DataFrame:
    """Return the key, `statistic` and `value`: of the last layer, and the mean over the edited ones before it."""
    if drift is None or drift.is_empty():
        return pl.DataFrame(schema={**KEY, "statistic": pl.String, "value": pl.Float64})
    last = pl.col("layer") == pl.col("layer").max().over("model")
    place = pl.when(last).then(pl.lit(", last layer")).otherwise(pl.lit(", edited layers"))
    named = drift.with_columns(
        statistic=pl.when(pl.col("layer").is_null())
        .then(pl.col("statistic"))
        .otherwise(pl.concat_str("statistic", place))
    )
    return named.group_by([*_CHECKPOINT, "statistic"]).agg(pl.col("value").mean())


def summarize_objectives(objectives: pl.DataFrame | None, harm: pl.DataFrame) -> pl.DataFrame:
    """Return the key, `statistic` and `value`: perplexity of the edit targets under the unedited model.

    Of all edits up to the checkpoint, exp of their mean nll; and by question type if it has several.

    Args:
        objectives: the table of that name.
        harm: of `compute_harms`, for the checkpoints.
    """
    if objectives is None or objectives.is_empty() or harm.is_empty():
        return pl.DataFrame(schema={**KEY, "statistic": pl.String, "value": pl.Float64})
    points = harm.select(_CHECKPOINT).unique()
    made = points.join(
        objectives.drop("edits", "editor", strict=False), on=["model", "dataset", "seed"]
    ).filter(pl.col("position") <= pl.col("edits"))
    whole = made.with_columns(statistic=pl.lit("objective_perplexity"))
    several = made.filter(pl.col("question_type").n_unique().over("model") > 1).with_columns(
        statistic=pl.format("objective_perplexity, {}", pl.col("question_type").fill_null("no type"))
    )
    rows = pl.concat([whole, several])
    return rows.group_by([*_CHECKPOINT, "statistic"]).agg(value=pl.col("nll").mean().exp())


def _correlate(own: pl.DataFrame, terms: Terms) -> dict[str, float | int | None]:
    """Return rho with its interval and p, of points in chains."""
    x, y = own["value"].to_numpy(), own["loss"].to_numpy()
    chain = own.select(pl.struct(_CHAIN).rank("dense") - 1).to_series().to_numpy().astype(int)
    chains = int(chain.max()) + 1
    found: dict[str, float | int | None] = {"points": len(x), "chains": chains}
    rho = float(spearman(x, y, np.ones((1, len(x))))[0])
    if not np.isfinite(rho):
        return found
    found["rho"] = rho
    if chains < FEWEST_CHAINS:
        return found
    rng = np.random.default_rng(terms.seed)
    times = rng.multinomial(chains, np.full(chains, 1 / chains), size=terms.resamples).astype(float)
    drawn = spearman(x, y, times[:, chain])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return found
    low, high = np.quantile(drawn, [terms.alpha / 2, 1 - terms.alpha / 2])
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, max(2 * (beyond + 1) / (len(drawn) + 1), 2 / math.factorial(chains)))
    return {**found, "low": float(low), "high": float(high), "p": p}


def spearman(x: Numbers, y: Numbers, times: Numbers) -> Numbers:
    """Return Spearman's rho of each resample; NaN where one of the two does not vary in it.

    Args:
        x: (points,).
        y: (points,).
        times: (resamples, points) how often each point is drawn.
    """
    ranks = [_ranks(one, times) for one in (x, y)]
    total = times.sum(axis=1, keepdims=True)
    centred = [one - (times * one).sum(axis=1, keepdims=True) / total for one in ranks]
    moments = [(times * one * one).sum(axis=1) for one in centred]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho: Numbers = (times * centred[0] * centred[1]).sum(axis=1) / np.sqrt(moments[0] * moments[1])
    still = np.minimum(*moments) <= 1e-9
    return np.where(still, np.nan, rho)


def _ranks(values: Numbers, times: Numbers) -> Numbers:
    """Return the mid-rank of each point among the drawn ones, equal values sharing theirs."""
    _, place = np.unique(values, return_inverse=True)
    counts = np.zeros((len(times), int(place.max()) + 1))
    for point, own in enumerate(place):
        counts[:, own] += times[:, point]
    middle = np.cumsum(counts, axis=1) - (counts - 1) / 2
    ranks: Numbers = middle[:, place]
    return ranks
