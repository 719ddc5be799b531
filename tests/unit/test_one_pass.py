"""One pass over W_0 and W: its numbers are those of whole matrices in float64."""

import functools
import operator
from itertools import pairwise

import numpy as np
import pytest
import torch

from collateral.evaluation.weights.one_pass import sweep

QUANTILES = [0.0, 0.01, 0.5, 0.8, 0.9, 0.99, 1.0]
THRESHOLDS = [0.077, 0.171]


def normal(shape, seed, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(before, after):
    """W_0, W, ΔW and δ as whole arrays."""
    old, new = before.double().numpy(), after.double().numpy()
    change = new - old
    return old, new, change, np.abs(change)[old != 0] / np.abs(old)[old != 0]


def rank_one(shape):
    before = normal(shape, 0, 0.02)
    return before, before + torch.outer(normal(shape[0], 1), normal(shape[1], 2)) * 1e-3


def masked(shape):
    """Three quarters of the elements did not move, and some have W_0 = 0."""
    before, after = rank_one(shape)
    before = before * (normal(shape, 4) > -1.5)
    return before, torch.where(normal(shape, 3) > 0.67, after, before)


def doubled(shape):
    """Every δ is one of two numbers."""
    before = normal(shape, 0)
    return before, before * torch.where(normal(shape, 5) > 0.3, 1.5, 1.25)


def halves(shape):
    return tuple(one.bfloat16() for one in rank_one(shape))


MATRICES = {"rank one": rank_one, "masked": masked, "doubled": doubled, "bfloat16": halves}


@pytest.mark.parametrize("shape", [(300, 500), (7, 40_000), (2000, 3), (1, 1)])
@pytest.mark.parametrize("kind", MATRICES)
def test_every_number_is_that_of_the_whole_matrix(kind, shape):
    before, after = MATRICES[kind](shape)
    found = sweep(before, after, THRESHOLDS, QUANTILES, 4)
    old, new, change, delta = plain(before, after)
    for matrix, absolute, square in zip((old, new, change), found.absolute, found.squares, strict=True):
        assert absolute == pytest.approx(np.abs(matrix).sum(), rel=1e-12)
        assert square == pytest.approx((matrix**2).sum(), rel=1e-12)
    assert (found.nonzero, found.zeros) == ((change != 0).sum(), (old == 0).sum())
    assert found.above == tuple((delta > t).sum() for t in THRESHOLDS)
    assert found.levels == (tuple(np.quantile(delta, QUANTILES)) if delta.size else ())  # bit for bit
    bands, cuts = (np.linspace(0, n, min(4, n) + 1).astype(int) for n in shape)
    for i, tiles in enumerate(found.tiles):
        for j, tile in enumerate(tiles):
            part = np.abs(change[bands[i] : bands[i + 1], cuts[j] : cuts[j + 1]])
            assert tile == pytest.approx(part.mean(), rel=1e-12)


def in_order(values):
    """Return a sum whose terms are added one after another; Python's own `sum` compensates from 3.12 on."""
    return functools.reduce(operator.add, values, 0.0)


def test_the_order_of_summation_is_the_one_that_is_written_down():
    """In Python's own arithmetic, one element after another: every machine finds these bits."""
    before, after = masked((20, 700))
    lanes, columns = [[0.0] * 64 for _ in range(5)], [0.0] * 768
    tiles, bands, cuts = [], (0, 6, 13, 20), (0, 233, 466, 700)
    for number, (old_row, new_row) in enumerate(
        zip(before.double().tolist(), after.double().tolist(), strict=True)
    ):
        old, new = old_row + [0.0] * 68, new_row + [0.0] * 68
        change = [b - a for a, b in zip(old, new, strict=True)]
        terms = (
            [abs(a) for a in old],
            [abs(b) for b in new],
            [a * a for a in old],
            [b * b for b in new],
            [c * c for c in change],
        )
        for lane, values in zip(lanes, terms, strict=True):
            for left in range(0, 768, 256):
                for k in range(64):
                    one, two, three, four = (values[left + k + 64 * i] for i in range(4))
                    lane[k] += (one + two) + (three + four)
        columns = [total + abs(c) for total, c in zip(columns, change, strict=True)]
        if number + 1 in bands:
            sums = [in_order(columns[left:right]) for left, right in pairwise(cuts)]
            tiles.append(sums)
            columns = [0.0] * 768
    result = sweep(before, after, THRESHOLDS, QUANTILES, 3)
    assert (*result.absolute[:2], *result.squares) == tuple(map(in_order, lanes))
    sizes = [[(low - top) * (right - left) for left, right in pairwise(cuts)] for top, low in pairwise(bands)]
    assert result.tiles.tolist() == [
        [total / size for total, size in zip(*rows, strict=True)] for rows in zip(tiles, sizes, strict=True)
    ]


def test_a_weight_that_is_not_finite_is_seen_and_no_crash():
    before, after = rank_one((300, 500))
    after[3, 4] = torch.nan
    found = sweep(before, after, THRESHOLDS, [0.5])
    assert np.isnan(found.absolute[1:]).all()
    assert np.isfinite(found.absolute[0])
    assert np.isnan(found.levels).all()


@pytest.mark.parametrize("weight", [torch.inf, -torch.inf])
def test_an_infinite_weight_is_counted_as_numpy_counts_it(weight):
    before, after = masked((40, 300))
    before[3, 4], after[5, 6] = weight, weight
    with np.errstate(invalid="ignore"):  # ∞ / ∞
        old, _, change, delta = plain(before, after)
    found = sweep(before, after, THRESHOLDS, [0.5])
    assert found.absolute == (np.inf, np.inf, np.inf)
    assert found.squares == (np.inf, np.inf, np.inf)
    assert (found.nonzero, found.zeros) == ((change != 0).sum(), (old == 0).sum())
    assert found.above == tuple((delta > t).sum() for t in THRESHOLDS)


def test_matrices_that_do_not_lie_row_by_row_have_the_same_numbers():
    before, after = masked((60, 300))
    other = [one.T.contiguous().T for one in (before, after)]
    assert not other[0].is_contiguous()
    one, two = (vars(sweep(*each, THRESHOLDS, QUANTILES, 3)) for each in ((before, after), other))
    assert one.pop("tiles").tolist() == two.pop("tiles").tolist()
    assert one == pytest.approx(two, rel=1e-14)


def test_the_matrices_stay_as_they_are():
    before, after = masked((30, 50))
    kept = before.clone(), after.clone()
    sweep(before, after, THRESHOLDS, QUANTILES, 4)
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])
