"""Paired 0/1 scores: the items that got worse and better, and what they allow to say. Torch-free."""

import math

from scipy.stats import binom, norm

_HALVINGS = 60  # of an interval of length at most 2: to the last bit


def tango_z(worse: float, better: float, n: int, difference: float) -> float:
    """Return the score statistic of the hypothesis that the share of right answers changed by `difference`.

    z = (b - c - nΔ) / √(n (2q + Δ(1 - Δ))), with b items better and c worse, and q the share of items that got
    worse, at its maximum likelihood under Δ: 2n q² + (-b - c + (2n - b + c)Δ) q - cΔ(1 - Δ) = 0
    (Tango 1998, Statistics in Medicine 17:891). Its one-sided form against a margin is the non-inferiority test of
    Nam (1997) and Tango.

    Args:
        worse: items that were right before and are wrong after.
        better: items that were wrong before and are right after.
        n: all items.
        difference: in [-1, 1].
    """
    linear = -better - worse + (2 * n - better + worse) * difference
    root = math.sqrt(max(linear**2 + 8 * n * worse * difference * (1 - difference), 0.0))
    share = (root - linear) / (4 * n)
    spread = math.sqrt(max(n * (2 * share + difference * (1 - difference)), 0.0))
    distance = better - worse - n * difference
    if spread > 0:
        return distance / spread
    # the hypothesis allows one outcome only, which is this one or is not
    return 0.0 if distance == 0 else math.copysign(math.inf, distance)


def tango_interval(worse: float, better: float, n: int, alpha: float) -> tuple[float, float]:
    """Return the score interval of the change of the share of right answers, level 1 - alpha.

    The differences that `tango_z` does not reject. It keeps its width where no item changed (0 of 50 leaves ±7
    points), unlike an interval that rests on the changed items alone (Wald's, or the exact one that conditions on
    their number), which is a point there.
    """
    limit = float(norm.isf(alpha / 2))
    middle = (better - worse) / n
    return _crossing(worse, better, n, limit, -1.0, middle), _crossing(worse, better, n, -limit, middle, 1.0)


def _crossing(worse: float, better: float, n: int, level: float, low: float, high: float) -> float:
    """Return where z, which falls with the difference, passes a level; the end where it does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if tango_z(worse, better, n, middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mcnemar_p(worse: float, better: float) -> float:
    """Return the exact two-sided p: of the changed items, each direction is as likely as the other.

    min(1, 2 P(X ≤ min(b, c))) with X binomial(b + c, ½).
    """
    return min(1.0, 2 * float(binom.cdf(min(worse, better), worse + better, 0.5)))


def margin_p(worse: float, better: float, n: int, margin: float) -> tuple[float, float]:
    """Return the one-sided p that the change is not below -margin, and that it is not above +margin.

    Small: shown to be on the inner side of that margin. Both small is equivalence (two one-sided tests).
    """
    below, above = tango_z(worse, better, n, -margin), tango_z(worse, better, n, margin)
    return float(norm.sf(below)), float(norm.cdf(above))


def detectable_share(worse: float, better: float, n: int, alpha: float, power: float) -> float:
    """Return the smallest change of the share that McNemar's test of n items finds with the given power.

    √n Δ = z_α √ψ + z_β √(ψ - Δ²) with ψ the share of changed items (Connor 1987, Biometrics 43:207), solved for Δ,
    z_α two-sided. ψ is (b + c + 1) / (n + 2): half an item is added to each cell (Agresti and Min 2005), so that
    0 changed items do not promise to find any effect at all. No net change exceeds the changed items: where the
    solution would, ψ = Δ, all of them in one direction.
    """
    first, second = float(norm.isf(alpha / 2)), float(norm.ppf(power))
    changed = (worse + better + 1) / (n + 2)
    room = n + second**2 - first**2
    if room > 0:
        found = math.sqrt(changed) * (first * math.sqrt(n) + second * math.sqrt(room)) / (n + second**2)
        if found <= changed:
            return float(found)
    if n <= first**2:
        return 1.0
    stay = math.sqrt((first * second) ** 2 - (n + second**2) * (first**2 - n)) - first * second
    return float(min(1.0, 1 - (stay / (n + second**2)) ** 2))
