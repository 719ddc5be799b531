"""How many edits an ability survives: the edit horizon, with an interval, censored beyond the study. Torch-free."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.analysis.statistics.inference import Terms
from collateral.analysis.statistics.normalized import compute_share_left, is_measurable
from collateral.analysis.statistics.pairing import BITS, JOINT, PERPLEXITY, PairedMetric
from collateral.analysis.tables.schema import TABLES

Numbers = npt.NDArray[np.float64]

SCHEMA = TABLES["horizons"].schema
Rows = dict[int, dict[int, int]]  # number of edits → seed → row of the metric's checkpoints


def estimate_horizons(
    metrics: Sequence[PairedMetric], collapses: pl.DataFrame | None, terms: Terms
) -> pl.DataFrame:
    """Return one row per model, data set, editor and primary metric: the number of edits until a share is lost.

    horizon: where the normalised ability, its mean over seeds and 1 at 0 edits, first falls to 1 - loss, on straight
    lines between the checkpoints; null if it does not up to `last_edits` (reached is false), or if the ability was at
    chance before editing (reached is null). low, high: percentile interval of level 1 - alpha, from resampling items
    together at all checkpoints, and seeds (S - 1 of S); null is beyond the last checkpoint. n is null where a metric
    has no items, and thus no interval.
    # ASSUME: a collapsed model does not recover: where it is not evaluated any more it is as it was.

    Args:
        metrics: of `pair_items`.
        collapses: the table of that name.
        terms: loss, level, resamples, seed.
    """
    rows = []
    for one in metrics:
        usable = is_measurable(one.about, one.logarithmic)
        for (dataset, editor), own in _chains(one, collapses).items():
            at = list(own)
            found: dict[str, object] = {"horizon": None, "low": None, "high": None, "reached": None}
            if usable:
                point = float(
                    _find_crossing(
                        np.array(at), _means(own, one.checkpoints["value"].to_numpy(), one), terms
                    )[0]
                )
                low, high = _interval(one, own, terms)
                found = {
                    "horizon": _finite(point),
                    "low": low,
                    "high": high,
                    "reached": bool(np.isfinite(point)),
                }
            rows.append(
                {
                    **{name: one.about[name] for name in ("model", "suite", "ability", "task", "metric")},
                    "dataset": dataset,
                    "editor": editor,
                    "loss": terms.horizon_loss,
                    **found,
                    "last_edits": at[-1],
                    "n": len(one.before) if one.kind != JOINT else None,
                    "seeds": len({seed for seeds in own.values() for seed in seeds}),
                }
            )
    table = pl.DataFrame(rows, schema=SCHEMA)
    return table.sort("model", "dataset", "editor", "suite", "task", "metric")


def _chains(one: PairedMetric, collapses: pl.DataFrame | None) -> dict[tuple[str, str], Rows]:
    """Return (data set, editor) → the rows of each number of edits, those of collapsed seeds carried on."""
    chains: dict[tuple[str, str], Rows] = {}
    numbered = one.checkpoints.with_row_index("row").sort("edits", maintain_order=True)
    for row in numbered.iter_rows(named=True):
        own = chains.setdefault((row["dataset"], row["editor"]), {})
        own.setdefault(row["edits"], {})[row["seed"]] = row["row"]
    if collapses is not None and not collapses.is_empty():
        gone = collapses.filter(~pl.col("evaluated") & (pl.col("model") == one.about["model"])).sort("edits")
        for row in gone.iter_rows(named=True):
            own = chains.get((row["dataset"], row["editor"]), {})
            before = [edits for edits, seeds in own.items() if row["seed"] in seeds and edits < row["edits"]]
            if before:
                own.setdefault(row["edits"], {})[row["seed"]] = own[max(before)][row["seed"]]
    return {chain: dict(sorted(own.items())) for chain, own in chains.items()}


def _means(own: Rows, values: Numbers, one: PairedMetric) -> Numbers:
    """Return (1, checkpoints) the mean over seeds of what is left."""
    left = compute_share_left(values, np.array(float(one.about["value"])), one)
    return np.array([[left[list(seeds.values())].mean() for seeds in own.values()]])


def _find_crossing(edits: npt.NDArray[np.int64], curves: Numbers, terms: Terms) -> Numbers:
    """Return where each curve (one a row) first falls to 1 - loss; infinity where it does not."""
    bound = 1 - terms.horizon_loss
    places = np.concatenate([[0.0], edits.astype(float)])
    whole = np.concatenate([np.ones((len(curves), 1)), curves], axis=1)
    lost = whole <= bound + 1e-12
    at = np.maximum(lost.argmax(axis=1), 1)
    rows = np.arange(len(curves))
    above, below = whole[rows, at - 1], whole[rows, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isfinite(below), (above - bound) / (above - below), 0.0)
    found = places[at - 1] + share * (places[at] - places[at - 1])
    return np.where(lost.any(axis=1), found, np.inf)


def _interval(one: PairedMetric, own: Rows, terms: Terms) -> tuple[float | None, float | None]:
    n = len(one.before)
    rows = sorted({row for seeds in own.values() for row in seeds.values()})
    if one.kind == JOINT or n < 2 or not np.isfinite(one.after[rows]).all():
        return None, None
    rng = np.random.default_rng(terms.seed)
    times = rng.multinomial(n, np.full(n, 1 / n), size=terms.resamples).astype(float)
    before = _value(one, times @ one.before, times @ one.before_weight)
    left = {
        row: compute_share_left(
            _value(one, times @ one.after[row], times @ one.after_weight[row]), before, one
        )
        for row in rows
    }
    seeds = sorted({seed for there in own.values() for seed in there})
    drawn = np.ones((terms.resamples, len(seeds)))
    if len(seeds) > 1:
        drawn = rng.multinomial(
            len(seeds) - 1, np.full(len(seeds), 1 / len(seeds)), size=terms.resamples
        ).astype(float)
    curves = np.stack([_drawn_mean(there, left, seeds, drawn) for there in own.values()], axis=1)
    curves = _fill_gaps(curves)
    known = ~np.isnan(before) & ~np.isnan(curves).any(axis=1)
    if not known.any():
        return None, None
    found = _find_crossing(np.array(list(own)), curves[known], terms)
    low = np.quantile(found, terms.alpha / 2, method="lower")
    high = np.quantile(found, 1 - terms.alpha / 2, method="higher")
    return _finite(float(low)), _finite(float(high))


def _drawn_mean(there: dict[int, int], left: dict[int, Numbers], seeds: list[int], drawn: Numbers) -> Numbers:
    """Return the mean over the drawn seeds of one checkpoint; NaN where none of them was measured there."""
    total, count = np.zeros(len(drawn)), np.zeros(len(drawn))
    for place, seed in enumerate(seeds):
        if seed in there:
            total += drawn[:, place] * left[there[seed]]
            count += drawn[:, place]
    with np.errstate(invalid="ignore"):
        mean: Numbers = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _fill_gaps(curves: Numbers) -> Numbers:
    """Return the curves with the value before (1 at the start) where no drawn seed was measured."""
    filled = curves.copy()
    for column in range(filled.shape[1]):
        before = filled[:, column - 1] if column else np.ones(len(filled))
        filled[:, column] = np.where(np.isnan(filled[:, column]), before, filled[:, column])
    return filled


def _value(one: PairedMetric, top: Numbers, bottom: Numbers) -> Numbers:
    """Return the metric of resampled sums."""
    with np.errstate(all="ignore"):
        ratio = top / bottom
        if one.kind == PERPLEXITY:
            return np.exp(-ratio)
        value: Numbers = -ratio / np.log(2) if one.kind == BITS else ratio
    return value


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
