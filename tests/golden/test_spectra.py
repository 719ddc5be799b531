"""Singular values and angles against matrices worked by hand, closed forms and NumPy's own decomposition."""

import math

import numpy as np
import pytest
import torch

from collateral.deltas.update import Factors
from collateral.evaluation.weights.spectra import (
    condition_number,
    cosine,
    frobenius,
    singular_range,
    spectral_norm,
    stable_rank,
)


def condition(matrix):
    return condition_number(*singular_range(matrix), matrix.shape)


def turned(values, shape, seed=0):
    """A matrix with these singular values between random rotations."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((shape[0], shape[0])))[0][:, : len(values)]
    right = np.linalg.qr(random.standard_normal((shape[1], shape[1])))[0][:, : len(values)]
    return (left * values) @ right.T


def factors(d_out, d_in, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(d_out, rank, generator=generator, dtype=torch.float64)
    return Factors(left, torch.randn(d_in, rank, generator=generator, dtype=torch.float64))


def test_two_by_two_worked_by_hand():
    """AᵀA = [[25, 20], [20, 25]] has the eigenvalues 45 and 5."""
    matrix = np.array([[3.0, 0.0], [4.0, 5.0]])
    assert spectral_norm(matrix) == pytest.approx(math.sqrt(45))
    assert singular_range(matrix) == pytest.approx((math.sqrt(45), math.sqrt(5)))
    assert condition(matrix) == pytest.approx(3.0)
    assert stable_rank(frobenius(matrix), spectral_norm(matrix)) == pytest.approx(50 / 45)


@pytest.mark.parametrize("turn", [False, True])
def test_two_by_three_worked_by_hand(turn):
    """A Aᵀ = [[17, 8], [8, 17]] has the eigenvalues 25 and 9, whichever side is thin."""
    matrix = np.array([[3.0, 2.0, 2.0], [2.0, 3.0, -2.0]])
    matrix = np.ascontiguousarray(matrix.T) if turn else matrix
    assert singular_range(matrix) == pytest.approx((5.0, 3.0))
    assert condition(matrix) == pytest.approx(5 / 3)
    assert stable_rank(frobenius(matrix), spectral_norm(matrix)) == pytest.approx(34 / 25)


@pytest.mark.parametrize("shape", [(40, 40), (30, 90), (90, 30), (3, 50), (50, 3), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_random_matrices_agree_with_a_full_decomposition(shape, dtype):
    matrix = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype).astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert spectral_norm(matrix) == pytest.approx(values[0], rel=1e-9)
    assert singular_range(matrix) == pytest.approx((values[0], values[-1]), rel=1e-8)
    assert condition(matrix) == pytest.approx(np.linalg.cond(matrix), rel=1e-8)


@pytest.mark.parametrize("exponent", [3, 6, 9])
def test_an_ill_conditioned_matrix_keeps_its_digits(exponent):
    """R's solves see σ_min itself; the Gram matrix would see its square, and lose it from 10⁸ on."""
    values = np.logspace(0, -exponent, 20)
    assert condition(turned(values, (20, 60))) == pytest.approx(10.0**exponent, rel=1e-5)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 6)),
        np.array([[1.0, 2.0], [2.0, 4.0]]),
        np.outer(np.arange(1.0, 6.0), np.arange(1.0, 9.0)),
        turned(np.array([3.0, 2.0, 1.0]), (12, 30)),
        np.diag([2.0, 1.0, 0.0, 5.0]),
    ],
)
def test_a_singular_matrix_has_an_infinite_condition_number(matrix):
    assert condition(matrix) == math.inf


def test_the_zero_matrix_has_no_norm_no_rank_and_no_direction():
    zero = np.zeros((5, 4))
    assert (frobenius(zero), spectral_norm(zero)) == (0.0, 0.0)
    assert stable_rank(0.0, 0.0) == 0.0
    assert cosine(zero, np.ones((5, 4))) is None


def test_a_matrix_that_is_not_finite_is_not_a_number_and_no_crash():
    broken = np.ones((6, 9))
    for value in (np.nan, np.inf):
        broken[2, 3] = value
        assert math.isnan(spectral_norm(broken))
        assert math.isnan(condition(broken))


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(30, 50, 1), (50, 30, 4), (8, 60, 20), (6, 5, 40)])
def test_factors_have_the_numbers_of_their_product(d_out, d_in, rank):
    own, other = factors(d_out, d_in, rank), factors(d_out, d_in, 3, seed=1)
    product, beside = own.dense().numpy(), other.dense().numpy()
    values = np.linalg.svd(product, compute_uv=False)
    assert frobenius(own) == pytest.approx(np.linalg.norm(product), rel=1e-12)
    assert spectral_norm(own) == pytest.approx(values[0], rel=1e-12)
    assert stable_rank(frobenius(own), spectral_norm(own)) == pytest.approx(
        (values**2).sum() / values[0] ** 2, rel=1e-12
    )
    wanted = (product * beside).sum() / np.linalg.norm(product) / np.linalg.norm(beside)
    for first in (own, product):
        for second in (other, beside):
            assert cosine(first, second) == pytest.approx(wanted, rel=1e-10)


def test_a_rank_one_update_is_its_vectors():
    """‖u vᵀ‖ is ‖u‖ ‖v‖ in both norms, and two of them make the product of their cosines."""
    u, v = torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0], [2.0], [2.0]])
    own = Factors(u, v)
    assert frobenius(own) == pytest.approx(15.0)
    assert spectral_norm(own) == pytest.approx(15.0)
    other = Factors(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0], [0.0]]))
    assert cosine(own, other) == pytest.approx(3 / 5 * 1 / 3)
    assert cosine(own, Factors(-2 * u, v)) == -1.0
