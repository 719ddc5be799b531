"""Least squares that take up keys a few at a time, against solving the whole system, over hundreds of operations."""

import numpy as np
import pytest
import torch

from collateral.editing.algorithms.recursive_least_squares import compute_gain, refit
from collateral.editing.prepare.second_moments import Moment
from collateral.errors import CollateralError

SIZE, OUT, WEIGHT = 64, 24, 5.0


def ill_conditioned(condition, size=SIZE):
    """A second moment whose eigenvalues span `condition` evenly by order of magnitude, and a root to draw keys by."""
    torch.manual_seed(3)
    vectors, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), size, dtype=torch.float64)
    half = vectors * values.sqrt()
    return half @ half.T, half


def system(condition):
    c, half = ill_conditioned(condition)
    return Moment(c, 10 * SIZE), half


def relative(got, wanted):
    return float((got - wanted).norm() / wanted.norm())


def take_up(root, keys):
    """The gain of new keys, and the root of the system with them, by way of a state that has a root."""
    state = {"root/0": root}
    gain = compute_gain(state, 0, keys, lambda: pytest.fail("the state has a root"))
    return gain, state["root/0"]


def test_one_key_by_hand():
    """A = diag(1, 4), k = (1, 2): A + k kᵀ = [[2, 2], [2, 8]], whose inverse is [[2/3, -1/6], [-1/6, 1/6]]."""
    root = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))
    key = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    gain, grown = take_up(root, key)
    wanted = torch.tensor([[4.0, -1.0], [-1.0, 1.0]], dtype=torch.float64) / 6
    assert torch.allclose(grown @ grown.T, wanted, atol=1e-15)
    assert torch.allclose(gain, wanted @ key, atol=1e-15)
    assert torch.equal(root, torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))), (
        "the root given is kept"
    )


def exactly(whole, right, factor):
    """The solution of a system that is known in extended precision, refined until it is exact to float64."""
    found = np.zeros(right.shape, np.longdouble)
    for _ in range(6):
        missing = torch.from_numpy((right - whole @ found).astype(np.float64))
        found = found + torch.cholesky_solve(missing, factor).numpy()
    return torch.from_numpy(found.astype(np.float64))


def wide(tensor):
    return tensor.numpy().astype(np.longdouble)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no extended precision to compare with")
@pytest.mark.parametrize("batch", [1, 8, 100], ids=["one", "eight", "more than dimensions"])
@pytest.mark.parametrize(("condition", "tolerance"), [(1e2, 1e-12), (1e6, 1e-11), (1e8, 2e-9)])
def test_after_hundreds_of_batches_nothing_has_drifted(condition, tolerance, batch):
    """Gain and map differ from the exact ones by no more than `torch.linalg.solve`'s of the whole system do."""
    moment, half = system(condition)
    state, whole = {}, WEIGHT * moment.matrix
    sums, crossed = np.longdouble(WEIGHT) * wide(moment.matrix), np.zeros((SIZE, OUT), np.longdouble)
    for i in range(300):
        keys = half @ torch.randn(SIZE, batch, dtype=torch.float64)
        values = torch.randn(OUT, batch, dtype=torch.float64)
        if i % 5 == 0:
            keys *= 10  # some facts' keys are much larger than a text's
        whole = whole + keys @ keys.T
        sums, crossed = sums + wide(keys) @ wide(keys).T, crossed + wide(keys) @ wide(values).T
        gain = compute_gain(state, 2, keys, lambda: moment.inverse_root(WEIGHT, 0.0, "cpu"))
        fitted = refit(state, 2, keys, values, gain)
        if i in (0, 9, 99, 299):
            factor = torch.linalg.cholesky(whole)
            for got, right in ((gain, wide(keys)), (fitted.T, crossed)):
                wanted = exactly(sums, right, factor)
                usual = torch.linalg.solve(whole, torch.from_numpy(right.astype(np.float64)))
                assert relative(got, wanted) < tolerance
                assert relative(got, wanted) < max(tolerance / 10, relative(usual, wanted))
    sizes = {name: tuple(one.shape) for name, one in state.items()}
    assert sizes == {"root/2": (SIZE, SIZE), "update/2": (OUT, SIZE)}


def test_the_same_key_again_and_again():
    """k repeated n times: the gain is C⁻¹k / (1 + n kᵀC⁻¹k), to a share of it that kᵀC⁻¹k bounds: here 7,057."""
    moment, half = system(1e2)
    key = 10 * half @ torch.randn(SIZE, 1, dtype=torch.float64)
    alone = torch.linalg.solve(moment.matrix, key)
    state = {}
    for _ in range(500):
        gain = compute_gain(state, 0, key, lambda: moment.inverse_root(1.0, 0.0, "cpu"))
    weight = 500 * float(key.T @ alone)
    assert weight > 1e6, "the keys outweigh the second moment, as no setting of a study lets them"
    assert relative(gain, alone / (1 + weight)) < 1e-14 * weight


def test_a_root_with_fewer_columns_stays_in_its_span():
    vectors, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64))
    span, rest = vectors[:, :20], vectors[:, 20:]
    root = span / 2
    for _ in range(50):
        gain, root = take_up(root, torch.randn(SIZE, 3, dtype=torch.float64))
    assert root.shape == (SIZE, 20)
    assert float((rest.T @ gain).norm()) < 1e-13 * float(gain.norm())


def test_where_a_root_lies_in_memory_changes_no_bit():
    """A state from a file may lie at any address and in any order: a chain's links go on with the same bits."""
    moment, half = system(1e6)
    keys = half @ torch.randn(SIZE, 3, dtype=torch.float64)
    own = moment.inverse_root(WEIGHT, 0.0, "cpu").contiguous()
    shifted = torch.empty(SIZE * SIZE + 1, dtype=torch.float64)[1:].reshape(SIZE, SIZE).copy_(own)
    turned = own.T.contiguous().T
    for other in (shifted, turned):
        for one, two in zip(take_up(own, keys), take_up(other, keys), strict=True):
            assert torch.equal(one, two)


def test_what_is_skipped_leaves_the_state_as_it_was():
    """An operation writes into its copy of the state's names; the tensors of the state before stay."""
    moment, half = system(1e2)
    key, value = half[:, :1], torch.ones(OUT, 1, dtype=torch.float64)
    state = {}
    gain = compute_gain(state, 0, key, lambda: moment.inverse_root(WEIGHT, 0.0, "cpu"))
    refit(state, 0, key, value, gain)
    before = {name: one.clone() for name, one in state.items()}
    later = dict(state)
    gain = compute_gain(later, 0, key, lambda: moment.inverse_root(WEIGHT, 0.0, "cpu"))
    refit(later, 0, key, value, gain)
    for name, one in before.items():
        assert torch.equal(state[name], one)
        assert not torch.equal(later[name], one)


def test_later_operations_ask_for_no_second_moment():
    moment, half = system(1e2)
    state = {}
    compute_gain(state, 0, half[:, :1], lambda: moment.inverse_root(WEIGHT, 0.0, "cpu"))
    compute_gain(state, 0, half[:, 1:2], lambda: pytest.fail("the second moment was read again"))


def test_a_singular_moment_is_refused_with_the_remedy():
    singular = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    with pytest.raises(CollateralError, match=r"second moment over 7 tokens is not positive definite; raise"):
        Moment(singular, 7).inverse_root(1.0, 0.0, "cpu")


def test_a_ridge_is_in_the_root():
    """C = diag(1, 3), ridge 0.5: shifted by half the mean diagonal, λ (C + I) = 4 diag(2, 4)."""
    moment = Moment(torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64)), 7)
    for _ in range(2):  # made, and kept
        root = moment.inverse_root(4.0, 0.5, "cpu")
        wanted = torch.diag(torch.tensor([1 / 8, 1 / 16], dtype=torch.float64))
        assert torch.allclose(root @ root.T, wanted, atol=1e-16)
