"""Paired scores that are not 0/1: intervals and p from resampling their items, and the seeds. Torch-free."""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import DegenerateDataWarning, bootstrap, norm, t

Numbers = npt.NDArray[np.float64]

ENUMERATED = 14  # differences: up to 2^14 sign patterns are counted out
_BATCH = 4_000_000  # resampled numbers in memory at a time
_HALVINGS = 100


@dataclass(frozen=True)
class Paired:
    """What each item adds to the two sums of a metric, before and after; the metric is their ratio.

    A mean has weights 1; a perplexity is exp(-ratio) of log-likelihoods and words; F1 is a ratio itself.

    Attributes:
        before: (n,) numerators of the unedited model.
        before_weight: (n,) its denominators.
        after: (seeds, n) numerators of the edited model.
        after_weight: (seeds, n) its denominators.
        sign: +1: the effect is the ratio after - before; -1: before - after, a log ratio of perplexities.
    """

    before: Numbers
    before_weight: Numbers
    after: Numbers
    after_weight: Numbers
    sign: float = 1.0

    @property
    def bounded(self) -> bool:
        """Whether the metric is a share: no score lies outside 0 and its weight."""
        return self.sign > 0 and all(
            bool(((top >= 0) & (top <= bottom)).all())
            for top, bottom in ((self.before, self.before_weight), (self.after, self.after_weight))
        )

    def effects(self) -> Numbers:
        """Return the effect under each seed."""
        ratios = self.after.sum(axis=1) / self.after_weight.sum(axis=1)
        found: Numbers = self.sign * (ratios - self.before.sum() / self.before_weight.sum()) + 0.0  # no -0.0
        return found

    def influences(self) -> Numbers:
        """Return (seeds, n) what each item contributes to the effect, to first order; each row sums to 0.

        The effect of a resample is about the effect plus the mean of its items' influences (the delta method).
        """
        n = len(self.before)
        ratio = self.after.sum(axis=1, keepdims=True) / self.after_weight.sum(axis=1, keepdims=True)
        after = (self.after - ratio * self.after_weight) / self.after_weight.sum(axis=1, keepdims=True)
        base = self.before.sum() / self.before_weight.sum()
        before = (self.before - base * self.before_weight) / self.before_weight.sum()
        found: Numbers = self.sign * n * (after - before)
        return found

    def differences(self) -> Numbers:
        """Return (n,) what each item adds to the effect under the first seed.

        It turns its sign if the item's scores before and after are exchanged. With the ratio R of both models' sums
        together, which an exchange leaves as it is: (after - R after_weight) - (before - R before_weight). With equal
        weights that is after - before.
        """
        total = self.after_weight[0].sum() + self.before_weight.sum()
        ratio = (self.after[0].sum() + self.before.sum()) / total
        moved = self.after_weight[0] - self.before_weight
        found: Numbers = self.sign * (self.after[0] - self.before - ratio * moved)
        return found


def sign_flip_p(differences: Numbers) -> float:
    """Return the two-sided p of the permutation test that exchanges before and after of single items.

    P(|Σ ±d| ≥ |Σ d|) over all sign patterns: counted out for up to 14 differences that are not 0, else by the
    saddlepoint approximation of Lugannani and Rice with the cumulants K(s) = Σ log cosh(s d) (Robinson 1982, JRSS B
    44:91). A sample of patterns could not go below one by their number, which no correction for a family survives;
    this stays close to the truth far into the tail, and has no seed. The sum is taken smaller by the smallest
    difference: half the step where all are equal, so that ties count as they must, and next to nothing elsewhere.
    """
    moved = np.abs(differences[differences != 0])
    total = abs(float(differences.sum()))
    if total <= 1e-12 * float(moved.sum()):
        return 1.0
    moved = moved / moved.max()
    total /= float(np.abs(differences).max())
    if len(moved) <= ENUMERATED:
        sums = np.zeros(1)
        for one in moved:
            sums = np.concatenate([sums - one, sums + one])
        return float(np.mean(np.abs(sums) >= total * (1 - 1e-12)))
    if total >= float(moved.sum()) * (1 - 1e-12):
        return 2 * 0.5 ** len(moved)
    return min(1.0, 2 * _saddlepoint_tail(moved, total - float(moved.min())))


def _saddlepoint_tail(moved: Numbers, total: float) -> float:
    """Return P(Σ ±d ≥ total) for positive differences, total below their sum."""
    if total <= 0:
        return 0.5
    low, high = 0.0, 1.0
    while float((moved * np.tanh(high * moved)).sum()) < total:
        high *= 2
        if high > 1e9:  # all but equal to the largest sum
            return float(0.5 ** len(moved))
    for _ in range(_HALVINGS):
        point = (low + high) / 2
        if float((moved * np.tanh(point * moved)).sum()) < total:
            low = point
        else:
            high = point
    scaled = point * moved
    cumulant = float((np.logaddexp(scaled, -scaled) - np.log(2)).sum())
    curvature = float((moved**2 / np.cosh(np.minimum(scaled, 300.0)) ** 2).sum())
    root = np.sqrt(max(2 * (point * total - cumulant), 0.0))
    standard = point * np.sqrt(curvature)
    if root < 1e-4 or standard == 0:  # the middle, where the formula divides two vanishing numbers
        return float(norm.sf(total / np.sqrt((moved**2).sum())))
    tail = norm.sf(root) + norm.pdf(root) * (1 / standard - 1 / root)
    return float(min(max(tail, 0.5 ** len(moved)), 0.5))


def unseen_variance(pair: Paired) -> float:
    """Return the variance that is added to a mean effect for items which did not move and might have.

    A share's: that of one more changed item, half of it in each direction, 1 / (n (n + 2)), as Agresti and Min (2005)
    add it for 0/1 scores; so that unmoved scores do not prove that none moves. Log-likelihoods are real numbers and
    move if anything does: nothing is added.
    """
    n = len(pair.before)
    return 1 / (n * (n + 2)) if pair.bounded else 0.0


def student(pair: Paired) -> tuple[float, float, float]:
    """Return effect, standard error and degrees of freedom, of the first seed, from the items' influences.

    se² = s² / n with s the influences' standard deviation, and what `unseen` adds; for Student's t with n - 1 degrees
    of freedom.
    """
    own = pair.influences()[0]
    variance = float(own.var(ddof=1)) / len(own) + unseen_variance(pair)
    return float(pair.effects()[0]), float(np.sqrt(variance)), float(len(own) - 1)


def student_interval(pair: Paired, alpha: float) -> tuple[float, float]:
    """Return effect ± t se, level 1 - alpha."""
    effect, error, freedom = student(pair)
    reach = float(t.isf(alpha / 2, freedom)) * error
    return effect - reach, effect + reach


def student_p(pair: Paired, value: float = 0.0) -> tuple[float, float]:
    """Return the one-sided p that the effect is not below `value`, and that it is not above it."""
    effect, error, freedom = student(pair)
    if error == 0:
        return float(effect <= value), float(effect >= value)
    z = (effect - value) / error
    return float(t.sf(z, freedom)), float(t.cdf(z, freedom))


def bca_interval(pair: Paired, alpha: float, resamples: int, seed: int) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of the effect of the first seed (Efron 1987).

    The items are resampled in pairs, numerators with denominators. The acceleration is Σψ³ / (6 (Σψ²)^1.5) of the
    influences ψ, not the jackknife's of the library, whose cost grows with the square of the items. Where no item
    moved against the effect the interval is a point; where the resamples do not allow the corrections (all of them
    on one side of the effect), it is Student's.
    """
    own = pair.influences()[0]
    if float(np.abs(own).max()) <= 1e-12 * max(1.0, float(np.abs(pair.effects()[0]))):
        return float(pair.effects()[0]), float(pair.effects()[0])
    drawn = _resample(pair, resamples, seed)
    effect = float(pair.effects()[0])
    side = float((drawn < effect).mean() + (drawn == effect).mean() / 2)
    if not np.isfinite(drawn).all() or side in (0.0, 1.0):
        return student_interval(pair, alpha)
    bias = float(norm.ppf(side))
    acceleration = float((own**3).sum() / (6 * (own**2).sum() ** 1.5))
    reach = bias + norm.ppf(np.array([alpha / 2, 1 - alpha / 2]))
    low, high = np.quantile(drawn, norm.cdf(bias + reach / (1 - acceleration * reach)))
    return float(low), float(high)


def _resample(pair: Paired, resamples: int, seed: int) -> Numbers:
    """Return the effects of the first seed under resamples of the items."""
    moved, weight = pair.after[0], pair.after_weight[0]
    data: list[Numbers] = [pair.sign * (moved - pair.before), weight]
    if (weight != pair.before_weight).any():
        data = [pair.sign * moved, weight, pair.sign * pair.before, pair.before_weight]

    def effect(*sums: Numbers, axis: int) -> Numbers:
        totals = [one.sum(axis=axis) for one in sums]
        ratio: Numbers = totals[0] / totals[1]
        return ratio if len(totals) == 2 else ratio - totals[2] / totals[3]

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Numbers = bootstrap(
            data,
            effect,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _BATCH // len(moved)),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return found


@dataclass(frozen=True)
class Crossed:
    """The bootstrap distribution of an effect over seeds and items: a mixture of Student's t, one a draw of seeds.

    Attributes:
        centres: mean effect of each draw of seeds.
        errors: its standard error over items.
        freedom: degrees of freedom of the items.
    """

    centres: Numbers
    errors: Numbers
    freedom: float

    def below(self, value: float) -> tuple[float, float]:
        """Return P(effect ≤ value) and P(effect ≥ value)."""
        still = self.errors == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (value - self.centres) / self.errors
        low = np.where(still, self.centres <= value, t.cdf(np.where(still, 0.0, z), self.freedom))
        high = np.where(still, self.centres >= value, t.sf(np.where(still, 0.0, z), self.freedom))
        return float(low.mean()), float(high.mean())

    def p(self) -> float:
        """Return the two-sided p: twice the smaller share of the distribution beyond 0."""
        return min(1.0, 2 * min(self.below(0.0)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the quantiles alpha/2 and 1 - alpha/2."""
        reach = float(t.isf(min(alpha / 2, 1e-3) / 10, self.freedom)) * float(self.errors.max())
        ends = float(self.centres.min()) - reach, float(self.centres.max()) + reach
        return self._quantile(alpha / 2, *ends), self._quantile(1 - alpha / 2, *ends)

    def _quantile(self, level: float, low: float, high: float) -> float:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self.below(middle)[0] < level:
                low = middle
            else:
                high = middle
        return high


def bootstrap_crossed(pair: Paired, resamples: int, seed: int) -> Crossed:
    """Return the crossed ("pigeonhole") bootstrap of the mean effect over seeds, for two seeds or more.

    Seeds and items are resampled independently of each other (Owen 2007, Annals of Applied Statistics 1:386). Of S
    seeds S - 1 are drawn, with replacement, which makes the variance between seeds unbiased (McCarthy and Snowden
    1985); all draws of up to 4 seeds are counted out, of more a sample. Given a draw of seeds, the items' part is
    taken at its limit, Student's t on their mean influences, so that small p do not end at one by the number of
    resamples.
    # ASSUME: the seeds of the study stand for other orders of edits. Few cannot: under two or three seeds the
    # interval covers what these orders show, and an order unlike them may lie outside.
    """
    effects, influences = pair.effects(), pair.influences()
    count, n = influences.shape
    if count <= 4:
        draws = np.array(list(itertools.product(range(count), repeat=count - 1)))
    else:
        draws = np.random.default_rng(seed).integers(count, size=(resamples, count - 1))
    times = np.stack([(draws == one).sum(axis=1) for one in range(count)], axis=1) / (count - 1)
    covariance = np.cov(influences, ddof=1) / n
    variances = np.einsum("ij,jk,ik->i", times, covariance, times)
    errors = np.sqrt(np.where(variances > 1e-30, variances, 0.0) + unseen_variance(pair))
    return Crossed(times @ effects, errors, float(n - 1))
