"""Paired scores of three kinds: numbers by hand, other implementations, and what must always hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, bootstrap, multinomial, norm, permutation_test, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar

from collateral.analysis.statistics.inference import Terms, adjust_holm, decide_verdict, infer
from collateral.analysis.statistics.paired_proportions import (
    detectable_share,
    margin_p,
    mcnemar_p,
    tango_interval,
    tango_z,
)
from collateral.analysis.statistics.resampling import (
    Paired,
    bca_interval,
    bootstrap_crossed,
    sign_flip_p,
    student,
    student_interval,
)

TERMS = Terms(resamples=400)


def scores(before, after, weight=None, sign: float = 1.0) -> Paired:
    before, after = np.asarray(before, dtype=float), np.atleast_2d(np.asarray(after, dtype=float))
    weight = np.ones_like(before) if weight is None else np.asarray(weight, dtype=float)
    return Paired(before, weight, after, np.tile(weight, (len(after), 1)), sign)


def shares(worse: int, better: int, same: int, seeds: int = 1) -> Paired:
    """Items of 0/1 scores: so many got worse, better, and stayed (right)."""
    before = [1.0] * worse + [0.0] * better + [1.0] * same
    return scores(before, [[0.0] * worse + [1.0] * (better + same)] * seeds)


def likelihoods(n: int, shift: float, seed: int = 0, noise: float = 0.05) -> Paired:
    """Texts of 20 to 60 words, about 4 nats a word; the edited model loses `shift` nats a word, more or less."""
    rng = np.random.default_rng(seed)
    words = rng.integers(20, 60, n).astype(float)
    before = -4 * words + rng.normal(0, 10, n)
    return scores(before, before - words * (shift + rng.normal(0, noise, n)), words, -1.0)


# 0/1 scores


def test_where_nothing_changed_the_interval_keeps_its_width():
    """No changed item: z² = n Δ / (1 - Δ), so that the ends are ±z²/(n + z²) = ±3.8415/53.8415 of 50 items."""
    low, high = tango_interval(0, 0, 50, 0.05)
    assert high == pytest.approx(0.071348, abs=1e-6)
    assert low == pytest.approx(-high, abs=1e-12)


def test_the_score_statistic_is_that_at_the_most_likely_share():
    """The restricted likelihood (q + Δ)^b q^c (1 - 2q - Δ)^(n-b-c) maximised by another route."""
    for worse, better, n, difference in (
        (9, 5, 40, 0.05),
        (9, 5, 40, -0.2),
        (1, 7, 20, -0.1),
        (3, 3, 30, 0.3),
    ):
        start = max(0.0, -difference)

        def loss(share, b=better, c=worse, size=n, d=difference):
            return -(
                b * math.log(share + d) + c * math.log(share) + (size - b - c) * math.log(1 - 2 * share - d)
            )

        ends = (start + 1e-9, (1 - difference) / 2 - 1e-9)
        share = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
        spread = math.sqrt(n * (2 * share + difference * (1 - difference)))
        expected = (better - worse - n * difference) / spread
        assert tango_z(worse, better, n, difference) == pytest.approx(expected, abs=1e-4)


def test_the_ends_of_the_interval_are_just_not_rejected():
    low, high = tango_interval(12, 2, 50, 0.05)
    assert tango_z(12, 2, 50, low) == pytest.approx(1.959964, abs=1e-5)
    assert tango_z(12, 2, 50, high) == pytest.approx(-1.959964, abs=1e-5)
    assert low < -10 / 50 < high < 0


@pytest.mark.parametrize(
    ("worse", "better"),
    [(0.01, 0.0), (0.02, 0.02), (0.05, 0.02), (0.1, 0.1), (0.2, 0.02), (0.3, 0.1), (0.4, 0.3), (0.0, 0.4)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(worse, better):
    """Exact coverage at 30 items: the probability of all outcomes whose interval holds better - worse."""
    n, covered = 30, 0.0
    limit = norm.isf(0.025)
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            weight = multinomial.pmf([lost, won, n - lost - won], n, [worse, better, 1 - worse - better])
            if weight > 1e-13 and abs(tango_z(lost, won, n, better - worse)) <= limit:
                covered += weight
    assert covered >= 0.93


def test_mcnemar_by_hand_and_as_elsewhere():
    """Of 6 changed items 1 got better: 2 (1 + 6) / 64 = 0.21875."""
    assert mcnemar_p(5, 1) == pytest.approx(0.21875)
    assert mcnemar_p(0, 0) == 1.0
    rng = np.random.default_rng(1)
    for worse, better in rng.integers(0, 40, (50, 2)).tolist():
        elsewhere = mcnemar([[10, worse], [better, 20]], exact=True).pvalue
        assert mcnemar_p(worse, better) == pytest.approx(min(1.0, elsewhere))
        if worse + better:
            assert mcnemar_p(worse, better) == pytest.approx(binomtest(worse, worse + better).pvalue)


def test_no_changed_item_of_few_does_not_exclude_a_harm_of_two_points():
    """z² = n m / (1 - m): of 50 items z = 1.0102, p = 0.1562; of 200 items z = 2.0203, p = 0.0217."""
    assert margin_p(0, 0, 50, 0.02) == pytest.approx((0.1562, 0.1562), abs=1e-4)
    assert margin_p(0, 0, 200, 0.02) == pytest.approx((0.0217, 0.0217), abs=1e-4)


def test_a_harm_is_further_from_no_harm_than_from_no_gain():
    harmed, gained = margin_p(12, 2, 100, 0.02)
    assert harmed > 0.9
    assert gained < 0.01
    assert margin_p(2, 12, 100, 0.02) == pytest.approx((gained, harmed))


def test_the_detectable_share_by_hand():
    """50 items, none changed: ψ = 1/52. Even √ψ-sized effects exceed it, so ψ = Δ: 50 Δ = (1.96 + 0.8416 √(1-Δ))²."""
    found = detectable_share(0, 0, 50, 0.05, 0.8)
    assert 50 * found == pytest.approx((1.959964 + 0.841621 * math.sqrt(1 - found)) ** 2, rel=1e-6)
    assert found == pytest.approx(0.14972, abs=1e-5)
    # 1,000 items, 100 changed: ψ = 101/1002; √1000 Δ = 1.96 √ψ + 0.8416 √(ψ - Δ²)
    found = detectable_share(60, 40, 1000, 0.05, 0.8)
    share = 101 / 1002
    right = 1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - found**2)
    assert math.sqrt(1000) * found == pytest.approx(right, rel=1e-6)
    assert detectable_share(0, 0, 3, 0.05, 0.8) == 1.0


def test_the_detectable_share_is_detected_as_often_as_it_says():
    """Power of the score form of McNemar's test, by exact enumeration over the changed items."""
    n, changed = 400, 0.1
    effect = detectable_share(round(changed * 402) - 1, 0, n, 0.05, 0.8)
    right, power = (changed + effect) / 2 / changed, 0.0
    for count in range(1, 120):
        k = np.arange(count + 1)
        found = np.abs(2 * k - count) / math.sqrt(count) > norm.isf(0.025)
        power += binom.pmf(count, n, changed) * binom.pmf(k, count, right)[found].sum()
    assert power == pytest.approx(0.8, abs=0.03)


# other scores


def test_the_effect_is_the_log_ratio_of_perplexities():
    """exp(-Σ ll / Σ words): before exp(12/5), after exp(15/5): the logarithm of their ratio is 3/5."""
    pair = scores([-4, -8], [-6, -9], [2, 3], -1.0)
    assert pair.effects() == pytest.approx([0.6])
    assert student(pair)[0] == pytest.approx(0.6)
    # items: 2 - 0.6 * 2 = 0.8 and 1 - 0.6 * 3 = -0.8, times n / words = 2/5
    assert pair.influences()[0] == pytest.approx([0.32, -0.32])


def test_an_f1_is_a_ratio_of_both_models_own_sums():
    """Before 4/8, after 6/10: 0.1. Exchanged sums keep R = 10/18; item 1: 1 - R (2 - 3)."""
    pair = Paired(
        np.array([1.0, 3.0]), np.array([3.0, 5.0]), np.array([[2.0, 4.0]]), np.array([[2.0, 8.0]]), 1.0
    )
    assert pair.effects() == pytest.approx([0.1])
    assert pair.differences()[0] == pytest.approx(1 + 10 / 18)


def test_sign_flips_of_few_items_are_counted_out():
    """|±1 ±2 ±3| ≥ 6 for 2 of 8 patterns; with -1: |sum| = 4 is reached by 4 of 8."""
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert sign_flip_p(np.array([-1.0, 2.0, 3.0, 0.0])) == pytest.approx(4 / 8)
    assert sign_flip_p(np.zeros(5)) == 1.0


@pytest.mark.parametrize(("n", "shift"), [(15, 0.2), (17, 0.6), (18, 1.0), (18, 0.0)])
def test_the_approximate_sign_flips_agree_with_all_of_them(n, shift):
    values = np.random.default_rng(n).normal(shift, 1, n)
    sums = np.zeros(1)
    for one in values:
        sums = np.concatenate([sums - one, sums + one])
    exact = float(np.mean(np.abs(sums) >= abs(values.sum())))
    assert sign_flip_p(values) == pytest.approx(exact, rel=0.15)


def test_sign_flips_agree_with_the_library_on_random_data():
    values = np.random.default_rng(3).exponential(1, 60) - 0.8
    drawn = permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(drawn, abs=0.01)


@pytest.mark.parametrize("against", [5, 8, 10])
def test_sign_flips_of_equal_differences_are_the_binomial_test(against):
    values = np.ones(30)
    values[:against] = -1
    assert sign_flip_p(values) == pytest.approx(2 * binom.cdf(against, 30, 0.5), rel=0.12)
    assert sign_flip_p(np.ones(30)) == pytest.approx(2 * 0.5**30)


def test_sign_flips_reach_far_into_the_tail():
    """200 items at 1 ± 0.5: the normal tail of 28.3 / √1.25 is about 1e-140; the fewest of all patterns 1e-60."""
    values = np.random.default_rng(0).normal(1, 0.5, 200)
    assert 2 * 0.5**200 <= sign_flip_p(values) < 1e-35


@pytest.mark.parametrize("skew", [False, True])
def test_the_bootstrap_interval_is_the_librarys(skew):
    pair = likelihoods(80, 0.1, seed=2)
    if skew:
        weight = pair.before_weight
        noise = np.random.default_rng(5).exponential(0.2, 80)
        pair = scores(pair.before, pair.before - weight * noise, weight, -1.0)

    def ratio(moved, weight, axis):
        return -moved.sum(axis=axis) / weight.sum(axis=axis)

    data = (pair.after[0] - pair.before, pair.before_weight)
    theirs = bootstrap(
        data,
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    mine = bca_interval(pair, 0.05, 9999, 2)
    width = theirs.high - theirs.low
    assert mine == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)


def test_the_bootstrap_interval_of_a_normal_mean_is_that_of_the_formula():
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    low, high = bca_interval(scores(np.zeros(400), values), 0.05, 4000, 0)
    reach = 1.959964 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.06 * reach)
    assert bca_interval(scores(np.zeros(400), values), 0.05, 4000, 0) == (low, high)


def test_texts_that_all_lose_alike_have_a_point_for_an_interval():
    words = np.array([20.0, 30.0, 40.0])
    pair = scores(-4 * words, -4.5 * words, words, -1.0)
    assert bca_interval(pair, 0.05, 100, 0) == pytest.approx((0.5, 0.5))


def test_a_handful_of_texts_is_judged_by_students_t():
    """Of 7 texts sign patterns cannot give less than 2/128, which no correction survives."""
    pair = likelihoods(7, 0.5)
    found = infer(pair, 1.0, 0.05, TERMS)
    assert (found.interval, found.test) == ("student t", "paired t")
    weight = pair.before_weight
    equal = scores(pair.before, pair.after, np.full(7, weight.mean()), -1.0)
    own = -(equal.after[0] - equal.before) / weight.mean()
    assert infer(equal, 1.0, 0.05, TERMS).p == pytest.approx(ttest_1samp(own, 0).pvalue)
    assert student_interval(equal, 0.05) == pytest.approx(tuple(ttest_1samp(own, 0).confidence_interval()))
    assert found.p is not None
    assert found.p < 1e-5


# several seeds


def test_two_orders_cover_each_orders_own_interval():
    """One seed of two is drawn: half of the draws is each order's own t; the ends are quantiles of the mixture."""
    pair = likelihoods(60, 0.1)
    other = likelihoods(60, 0.1)
    both = Paired(
        pair.before,
        pair.before_weight,
        np.concatenate([pair.after, other.after - 0.3 * pair.before_weight]),
        np.tile(pair.before_weight, (2, 1)),
        -1.0,
    )
    found = bootstrap_crossed(both, 100, 0)
    assert found.centres == pytest.approx(both.effects())
    low, high = found.interval(0.05)
    assert low < both.effects()[0] < both.effects()[1] < high
    assert found.below(low)[0] == pytest.approx(0.025, abs=1e-6)
    assert found.below(high)[0] == pytest.approx(0.975, abs=1e-6)


def test_equal_orders_are_judged_as_one_order_would_be():
    pair = likelihoods(60, 0.02)
    twice = Paired(
        pair.before, pair.before_weight, np.tile(pair.after, (3, 1)), np.tile(pair.after_weight, (3, 1)), -1.0
    )
    found = bootstrap_crossed(twice, 100, 0)
    assert found.interval(0.05) == pytest.approx(student_interval(pair, 0.05), abs=1e-9)


def test_many_orders_have_the_variance_of_both_levels():
    """Effects of 8 orders (sd 0.2) on 4,000 like items (no noise left): the interval is wide by the orders alone."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0.5, 0.2, 8)
    items = rng.normal(0, 0.1, (1, 4000)) + effects[:, None]
    found = bootstrap_crossed(scores(np.zeros(4000), items), 4000, 0)
    assert np.var(found.centres) == pytest.approx(items.mean(axis=1).var(ddof=1) / 8, rel=0.1)


def test_the_crossed_bootstrap_agrees_with_drawing_seeds_and_items():
    rng = np.random.default_rng(4)
    items = rng.normal(0.2, 1, (3, 200)) + rng.normal(0, 0.15, (3, 1)) + rng.normal(0, 0.5, (1, 200))
    found = bootstrap_crossed(scores(np.zeros(200), items), 100, 0).interval(0.05)
    drawn = [
        items[np.ix_(rng.integers(3, size=2), rng.integers(200, size=200))].mean() for _ in range(20_000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found == pytest.approx((low, high), abs=0.06 * (high - low))


# families and verdicts


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, 0.03 * 2, 0.5: 0.04, 0.06, 0.06, 0.5; a p that is not known does not count."""
    adjusted = adjust_holm(np.array([0.5, 0.01, np.nan, 0.03, 0.02]))
    assert adjusted[[0, 1, 3, 4]] == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert math.isnan(adjusted[2])
    assert np.isnan(adjust_holm(np.array([np.nan]))).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_the_stepwise_rule(values):
    """Rejected at a level: the smallest p for as long as each is at most level / (those left)."""
    adjusted = adjust_holm(np.array(values))
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
            if values[place] > level / (len(values) - rank):
                break
            rejected.add(place)
        near = {place for place, one in enumerate(adjusted) if abs(one - level) < 1e-12}
        assert {place for place, one in enumerate(adjusted) if one <= level} - near == rejected - near


def test_a_verdict_says_no_more_than_was_shown():
    assert decide_verdict(-0.1, 0.01, 0.9, -1.0, 0.05) == "harm"
    assert decide_verdict(0.1, 0.01, 0.001, -1.0, 0.05) == "no harm"
    assert (
        decide_verdict(-0.01, 0.01, 0.01, -1.0, 0.05) == "no harm"
    )  # shown, and shown to be within the margin
    assert decide_verdict(0.1, 0.01, 0.9, -1.0, 0.05) == "inconclusive"
    assert decide_verdict(0.1, 0.01, 0.9, 1.0, 0.05) == "harm"
    assert decide_verdict(None, None, None, 1.0, 0.05) == "inconclusive"


def test_an_unchanged_model_has_no_effect_on_any_kind_of_score():
    same = np.random.default_rng(0).random(50)
    for pair, harmful in (
        (shares(0, 0, 50), -1.0),
        (shares(0, 0, 50, seeds=2), -1.0),
        (scores(same, same), -1.0),
        (scores(same[:8], same[:8]), -1.0),
        (scores(-100 * same, -100 * same, 10 * np.ones(50), -1.0), 1.0),
        (scores(-100 * same, [-100 * same, -100 * same], 10 * np.ones(50), -1.0), 1.0),
    ):
        found = infer(pair, harmful, 0.02, TERMS)
        assert (found.estimate, found.p) == (0.0, 1.0)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 0 <= found.high
        # shares that did not move might have; log-likelihoods to the last bit are the same model
        assert (found.p_no_harm == 0.0) is (pair.sign < 0)
        assert (found.low < 0) is (pair.sign > 0)


@pytest.mark.parametrize("kind", ["shares", "scores", "texts", "handful", "orders"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-0.3, 0.3))
def test_exchanging_before_and_after_turns_the_effect_around(kind, seed, shift):
    rng = np.random.default_rng(seed)
    n = 8 if kind == "handful" else 40
    if kind in {"texts", "handful"}:
        pair = likelihoods(n, shift, seed)
    elif kind == "orders":
        items = rng.random((3, n))
        pair = scores(items[0], items[1:])
    else:
        before = rng.random(n)
        after = np.clip(before + shift + rng.normal(0, 0.2, n), 0, 1)
        pair = scores(before.round(), after.round()) if kind == "shares" else scores(before, after)
    found = infer(pair, -1.0, 0.02, TERMS)
    if kind == "orders":  # two models cannot both be the unedited one: turn the scores around instead
        turned = infer(scores(1 - pair.before, 1 - pair.after), -1.0, 0.02, TERMS)
    else:
        turned = infer(
            Paired(pair.after[0], pair.before_weight, pair.before[None], pair.after_weight, pair.sign),
            -1.0,
            0.02,
            TERMS,
        )
    for mine, theirs in (
        (found.estimate, turned.estimate),
        (found.low, turned.high),
        (found.high, turned.low),
    ):
        assert mine == pytest.approx(
            -theirs, abs=0.012
        )  # resamples differ: their quantiles are not mirrored exactly
    assert found.p == pytest.approx(turned.p, abs=1e-9)
    assert found.p_no_harm == pytest.approx(turned.p_no_gain, abs=1e-9)
    assert (found.worse, found.better) == (turned.better, turned.worse)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 400))
def test_more_items_that_get_worse_never_speak_against_harm(worse, better, same):
    """With one item more that got worse in place of one that stayed, the verdict does not move towards no harm."""
    order = {"no harm": 0, "inconclusive": 1, "harm": 2}
    seen = []
    for more in range(3):
        found = infer(shares(worse + more, better, same + 3 - more), -1.0, 0.02, TERMS)
        seen.append(order[decide_verdict(found.estimate, found.p, found.p_no_harm, -1.0, 0.05)])
    assert seen == sorted(seen)


def test_items_that_get_worse_are_those_of_the_harmful_side():
    assert (
        infer(shares(3, 1, 10), -1.0, 0.02, TERMS).worse,
        infer(shares(3, 1, 10), 1.0, 0.02, TERMS).worse,
    ) == (3, 1)
    assert infer(shares(3, 1, 10, seeds=2), -1.0, 0.02, TERMS).worse == 6


def test_a_single_item_shows_nothing():
    found = infer(scores([1.0], [0.0]), -1.0, 0.02, TERMS)
    assert found.estimate == -1.0
    assert (found.low, found.p, found.p_no_harm) == (None, None, None)


def test_the_terms_are_read_from_the_config():
    given_terms = {"alpha": 0.1, "power": 0.9, "resamples": 50, "horizon_loss": 0.2, "seed": 3}
    terms = Terms.of({**given_terms, "margin": {"share": 0.01, "perplexity": 0.1}})
    assert terms == Terms(0.1, 0.9, 50, 0.01, 0.1, 0.2, 3)


def test_any_two_items_give_numbers():
    """The smallest study has two items a task: whatever they are, nothing breaks."""
    for before, after in itertools.product(itertools.product((0.0, 0.5, 1.0), repeat=2), repeat=2):
        found = infer(scores(before, after), -1.0, 0.02, TERMS)
        assert found.p is not None
        assert 0 <= found.p <= 1
        twice = infer(scores(before, [after, before]), -1.0, 0.02, TERMS)
        assert twice.p is not None
        assert 0 <= twice.p <= 1
