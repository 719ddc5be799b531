"""RECT, random, PCA and magnitude against matrices worked by hand."""

import pytest
import torch

from collateral.editing.algorithms.element_selection import count_kept, select_largest
from collateral.editing.registry import complete_regularizer, load_regularizer
from collateral.editing.regularizer import regularize
from collateral.editing.regularizers.magnitude import Magnitude
from collateral.editing.regularizers.pca import Pca
from collateral.editing.regularizers.prune import Prune
from collateral.editing.regularizers.random import Random
from collateral.editing.regularizers.rect import Rect
from collateral.errors import CollateralError

W = torch.tensor([[1.0, -2.0, 4.0], [0.0, 8.0, -1.0]])
DW = torch.tensor([[0.5, 0.5, -1.0], [0.1, 0.0, -0.75]])
# delta = |DW| / |W|: 0.5, 0.25, 0.25 | inf, 0, 0.75


def rect(weight, update, keep):
    return regularize(Rect(keep), weight, None, update, 0)


def random(update, keep, seed):
    return regularize(Random(keep), update, None, update, seed)


def pca(update, keep, variant):
    return regularize(Pca(keep, variant), update, None, update, 0)


def kept(keep, weight=W, update=DW):
    return rect(weight, update, keep).tolist()


def test_rect_keeps_the_largest_relative_changes():
    # ceil(50 % of 6) = 3: inf, 0.75, 0.5
    assert kept(50) == [[0.5, 0.0, 0.0], [pytest.approx(0.1), 0.0, -0.75]]


def test_rect_breaks_ties_by_row_major_index():
    # ceil(60 % of 6) = 4: of the two 0.25 the first in row-major order stays
    assert kept(60) == [[0.5, 0.5, 0.0], [pytest.approx(0.1), 0.0, -0.75]]


def test_zero_weight_ranks_first_and_zero_update_last():
    # ceil(1 % of 6) = 1: W = 0 with a change is infinitely changed
    assert kept(1) == [[0.0, 0.0, 0.0], [pytest.approx(0.1), 0.0, 0.0]]
    both_zero = rect(torch.zeros(1, 2), torch.tensor([[0.0, 3.0]]), 50)
    assert both_zero.tolist() == [[0.0, 3.0]]


def test_keep_100_is_the_identity():
    for name in ("rect", "random", "magnitude"):
        assert torch.equal(regularize(load_regularizer({"name": name, "keep": 100}), W, None, DW, 7), DW)


def test_magnitude_ignores_the_weight():
    # |DW| sorted: 1.0, 0.75, then the first 0.5
    assert regularize(Magnitude(50), W, None, DW, 0).tolist() == [[0.5, 0.0, -1.0], [0.0, 0.0, -0.75]]


def test_rect_reference_original_uses_the_unedited_weight():
    original = torch.tensor([[100.0, 2.0, 4.0], [1.0, 8.0, 1.0]])
    # delta against W_0: 0.005, 0.25, 0.25 | 0.1, 0, 0.75
    rule = Rect(50, reference="original")
    assert regularize(rule, W, original, DW, 0).tolist() == [[0.0, 0.5, -1.0], [0.0, 0.0, -0.75]]


def test_transposed_storage_gives_the_same_mask():
    torch.manual_seed(1)
    weight, update = torch.randn(7, 5), torch.randn(7, 5)
    view = update.T.contiguous().T  # same numbers, other memory order, as Conv1D hands them out
    assert torch.equal(rect(weight, update, 37), rect(weight.T.contiguous().T, view, 37))


@pytest.mark.parametrize("keep", [0.1, 20, 33.3, 40, 99.9, 100])
def test_count_is_exactly_the_ceiling(keep):
    score = torch.randint(0, 3, (9, 11)).double()  # many ties
    assert int(select_largest(score, keep).sum()) == count_kept(keep, 99)
    mask = random(torch.ones(9, 11), keep, 5)
    assert int(mask.sum()) == count_kept(keep, 99)


def test_count_kept_by_hand():
    assert [count_kept(k, 10) for k in (40, 41, 1, 100)] == [4, 5, 1, 10]


def test_l1_grows_with_keep():
    torch.manual_seed(0)
    weight, update = torch.randn(20, 30), torch.randn(20, 30)
    sizes = [float(rect(weight, update, keep).abs().sum()) for keep in (10, 20, 40, 80, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_random_is_a_function_of_the_seed():
    update = torch.randn(30, 30)
    assert torch.equal(random(update, 40, 3), random(update, 40, 3))
    assert not torch.equal(random(update, 40, 3), random(update, 40, 4))


def test_pca_svd_keeps_the_leading_triplets():
    # diag(3, 2, 1): two thirds of the rank keep 3 and 2
    kept_part = pca(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 66, "svd")
    assert torch.allclose(kept_part, torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)


@pytest.mark.parametrize("variant", ["svd", "rows"])
def test_a_rank_one_update_survives_pca(variant):
    # rows: centring and the mean's way back leave rank one as it was
    update = torch.outer(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 1.0, 0.0, 2.0]))
    assert torch.allclose(pca(update, 34, variant), update, atol=1e-5)


def test_released_pca_writes_scores_into_the_first_rows():
    # dW^T has the two samples (1, 0) and (-1, 0): mean 0, one component (1, 0), scores 1 and -1.
    # keep 50 % of d_out = 2 gives one column of scores, which becomes row 0 of dW.
    update = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    assert torch.allclose(pca(update, 50, "released"), update, atol=1e-6)
    turned = torch.tensor([[0.0, 0.0], [1.0, -1.0]])  # the same component, in d_out's second direction:
    assert torch.allclose(pca(turned, 50, "released"), update, atol=1e-6)  # the way back is missing


def test_half_precision_weights_work():
    got = rect(W.bfloat16(), DW.bfloat16(), 50)
    assert got.dtype == torch.bfloat16
    assert int((got != 0).sum()) == 3


@pytest.mark.parametrize("keep", [0, -1, 100.5])
def test_keep_out_of_range(keep):
    with pytest.raises(CollateralError, match="keep is"):
        complete_regularizer({"name": "rect", "keep": keep}, "here")


def test_unknown_regularizer_names_the_nearest():
    with pytest.raises(CollateralError, match="did you mean 'rect'"):
        load_regularizer({"name": "rectt", "keep": 40})


def test_prune_squeezes_only_singular_values_above_those_of_w():
    """By hand: s_max(W_0) = 2; 8 becomes log2(8) - log2(2) + 2 = 4; 1.5 stays."""
    original = torch.diag(torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64))
    update = torch.diag(torch.tensor([8.0, 1.5, 0.0], dtype=torch.float64))
    restrained = Prune(log_base=2.0)(original, original, update, 0)
    assert torch.allclose(restrained, torch.diag(torch.tensor([4.0, 1.5, 0.0], dtype=torch.float64)))


def test_prune_with_a_larger_base_squeezes_more():
    original = torch.eye(2, dtype=torch.float64)
    update = torch.diag(torch.tensor([50.0, 0.1], dtype=torch.float64))
    sizes = [float(Prune(log_base=b)(original, original, update, 0)[0, 0]) for b in (1.2, 2, 10)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == pytest.approx(1 + 1.69897, rel=1e-5)  # 1 + log10(50)
