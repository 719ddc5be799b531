"""Paired scores → what they show: effect, interval, p, equivalence, detectable effect, verdict. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t
from statsmodels.stats.multitest import multipletests

from collateral.analysis.statistics import paired_proportions as proportions
from collateral.analysis.statistics import resampling
from collateral.analysis.statistics.resampling import Paired

Numbers = npt.NDArray[np.float64]

FEW = 20  # items, below which neither the bootstrap nor sign patterns reach into the tails
HARM, NO_HARM, INCONCLUSIVE = "harm", "no harm", "inconclusive"
AT_CHANCE, COLLAPSED, NOT_EVALUATED = "at chance", "collapsed", "not evaluated"


@dataclass(frozen=True)
class Terms:
    """On what terms a study decides; the section `inference` of the config.

    Attributes:
        alpha: level of tests and intervals.
        power: of the minimum detectable effect.
        resamples: of a bootstrap.
        share_margin: change of a score that still counts as none, in its own unit (0.02: two points of 100).
        perplexity_margin: change of the logarithm of a perplexity that still counts as none.
        horizon_loss: share of an ability whose loss ends the edit horizon.
        seed: of the resampling.
    """

    alpha: float = 0.05
    power: float = 0.8
    resamples: int = 2000
    share_margin: float = 0.02
    perplexity_margin: float = 0.05
    horizon_loss: float = 0.05
    seed: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Terms":
        """Return the terms of the config's section."""
        own = {name: value for name, value in settings.items() if name != "margin"}
        margin = settings["margin"]
        return cls(**own, share_margin=margin["share"], perplexity_margin=margin["perplexity"])


@dataclass(frozen=True)
class Finding:
    """What paired items show about one cell; None where they cannot.

    Attributes:
        estimate: the effect, on the metric's scale.
        low: end of its interval.
        high: end of its interval.
        interval: how that was made.
        p: two-sided, of no effect.
        test: how that was made.
        p_no_harm: one-sided, of a harm of the margin or more.
        p_no_gain: one-sided, of a gain of the margin or more.
        mde: minimum detectable effect.
        worse: items of 0/1 scores that got worse, over all seeds.
        better: those that got better.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    p: float | None = None
    test: str | None = None
    p_no_harm: float | None = None
    p_no_gain: float | None = None
    mde: float | None = None
    worse: int | None = None
    better: int | None = None


def infer(pair: Paired, harmful: float, margin: float, terms: Terms) -> Finding:
    """Return what the pairs show.

    One seed and 0/1 scores: Tango's score interval, exact McNemar p, the score test against the margin. One seed and
    other scores: BCa bootstrap and sign flips, against the margin Student's t on the items' influences; that for all
    three where the items are few, because a handful of texts has neither enough resamples nor enough sign patterns to
    pass any correction. Several seeds: the crossed bootstrap for all.

    Args:
        pair: finite; of two items or more, else nothing is found.
        harmful: the sign of a harmful effect, -1 or +1.
        margin: positive; effects within ± margin count as none.
        terms: levels.
    """
    seeds, n = pair.after.shape
    if n < 2:
        return Finding(estimate=float(pair.effects().mean()))
    worse, better = _count_changed(pair, harmful)
    if seeds > 1:
        found = _infer_seeds(pair, margin, terms)
    elif worse is not None and better is not None:
        found = _infer_shares(pair, float(worse), float(better), margin, terms)
    else:
        found = _infer_scores(pair, margin, terms)
    low_side, high_side = found.p_no_harm, found.p_no_gain  # of an effect below -margin, above +margin
    if harmful > 0:
        low_side, high_side = high_side, low_side
    return Finding(
        **{**vars(found), "p_no_harm": low_side, "p_no_gain": high_side, "worse": worse, "better": better}
    )


def _count_changed(pair: Paired, harmful: float) -> tuple[int | None, int | None]:
    """Return how many items of 0/1 scores got worse and better; None for other scores."""
    weights = (pair.before_weight == 1).all() and (pair.after_weight == 1).all()
    if (
        pair.sign < 0
        or not weights
        or not np.isin(pair.after, (0, 1)).all()
        or not np.isin(pair.before, (0, 1)).all()
    ):
        return None, None
    moved = (pair.after - pair.before[None, :]) * -harmful
    return int((moved < 0).sum()), int((moved > 0).sum())


def _infer_shares(pair: Paired, worse: float, better: float, margin: float, terms: Terms) -> Finding:
    """Return the finding of 0/1 scores; its p_no_harm is that of an effect below -margin."""
    n = len(pair.before)
    fell = float((pair.after[0] < pair.before).sum())
    rose = worse + better - fell
    low, high = proportions.tango_interval(fell, rose, n, terms.alpha)
    below, above = proportions.margin_p(fell, rose, n, margin)
    mde = proportions.detectable_share(fell, rose, n, terms.alpha, terms.power)
    p = proportions.mcnemar_p(fell, rose)
    return Finding((rose - fell) / n, low, high, "tango", p, "mcnemar exact", below, above, mde)


def _infer_scores(pair: Paired, margin: float, terms: Terms) -> Finding:
    """Return the finding of scores that are not 0/1; its p_no_harm is that of an effect below -margin."""
    n = len(pair.before)
    effect, error, freedom = resampling.student(pair)
    below, above = resampling.student_p(pair, -margin)[0], resampling.student_p(pair, margin)[1]
    unmoved = not pair.differences().any()
    if unmoved and pair.bounded:
        low, high, interval = *proportions.tango_interval(0.0, 0.0, n, terms.alpha), "tango"
    elif n < FEW:
        low, high, interval = *resampling.student_interval(pair, terms.alpha), "student t"
    else:
        low, high = resampling.bca_interval(pair, terms.alpha, terms.resamples, terms.seed)
        interval = "bca"
    if n < FEW:
        p, test = (1.0 if unmoved else min(1.0, 2 * min(resampling.student_p(pair)))), "paired t"
    else:
        p, test = resampling.sign_flip_p(pair.differences()), "sign flip"
    mde = _detectable_effect(error, freedom, terms)
    return Finding(effect, low, high, interval, p, test, below, above, mde)


def _infer_seeds(pair: Paired, margin: float, terms: Terms) -> Finding:
    """Return the finding of several seeds; its p_no_harm is that of an effect below -margin."""
    found = resampling.bootstrap_crossed(pair, terms.resamples, terms.seed)
    low, high = found.interval(terms.alpha)
    error = float(np.sqrt(found.centres.var() + (found.errors**2).mean()))
    unmoved = (
        not (pair.after - pair.before[None, :]).any()
        and not (pair.after_weight - pair.before_weight[None, :]).any()
    )
    return Finding(
        float(pair.effects().mean()),
        low,
        high,
        "crossed bootstrap",
        1.0 if unmoved else found.p(),
        "crossed bootstrap",
        found.below(-margin)[0],
        found.below(margin)[1],
        _detectable_effect(error, found.freedom, terms),
    )


def _detectable_effect(error: float, freedom: float, terms: Terms) -> float | None:
    """Return the effect that a two-sided t test finds with the given power; None where nothing varies."""
    if error == 0:
        return None
    return float(t.isf(terms.alpha / 2, freedom) + t.ppf(terms.power, freedom)) * error


def adjust_holm(values: Numbers) -> Numbers:
    """Return Holm's adjusted p of one family; NaN stays NaN and does not count."""
    adjusted = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    if known.any():
        adjusted[known] = multipletests(values[known], method="holm")[1]
    return adjusted


def decide_verdict(
    estimate: float | None, p: float | None, p_no_harm: float | None, harmful: float, alpha: float
) -> str:
    """Return `harm`, `no harm` or `inconclusive`.

    no harm: an effect as harmful as the margin is excluded, even where a smaller one is shown. harm: an effect is
    shown, it is harmful, and it may reach the margin.

    Args:
        estimate: the effect.
        p: adjusted, of no effect.
        p_no_harm: adjusted, of a harm of the margin or more.
        harmful: the sign of a harmful effect.
        alpha: level.
    """
    if p_no_harm is not None and p_no_harm < alpha:
        return NO_HARM
    if p is not None and estimate is not None and p < alpha and estimate * harmful > 0:
        return HARM
    return INCONCLUSIVE
