"""Singular values and angles of matrices without a dense singular value decomposition."""

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.sparse.linalg import LinearOperator, eigsh, svds

from collateral.deltas.update import Factors, norm

Matrix = npt.NDArray[np.float64]
_SMALL = 3  # a matrix with a side below this is decomposed: too small for the iteration
_CONDITION = 1e3  # up to which the Gram matrix has the smallest singular value to ten digits
_TOLERANCE = 1e-9  # relative, of the iterations


def frobenius(change: Matrix | Factors) -> float:
    """Return the Frobenius norm; of factors L Rᵀ from the small products LᵀL and RᵀR."""
    return norm(change) if isinstance(change, Factors) else float(np.linalg.norm(change))


def spectral_norm(change: Matrix | Factors) -> float:
    """Return the largest singular value; not a number where an element is not finite.

    By Lanczos iteration from a fixed start. Of factors L Rᵀ with L = Q A and R = P B, it is that of A Bᵀ, which is
    rank x rank.
    """
    if isinstance(change, Factors):
        left, right = (_factor_qr(part.double().cpu().numpy()) for part in (change.left, change.right))
        return float(np.linalg.norm(left @ right.T, ord=2))
    if not np.isfinite(change).all():
        return float("nan")
    if not change.any():
        return 0.0
    if min(change.shape) < _SMALL:
        return float(np.linalg.norm(change, ord=2))
    start = _draw_start(min(change.shape))
    return float(svds(change, k=1, v0=start, return_singular_vectors=False, tol=_TOLERANCE)[0])


def stable_rank(fro: float, spectral: float) -> float:
    """Return ‖M‖_F² / ‖M‖₂², between 1 and the rank; 0 for the zero matrix.

    Args:
        fro: ‖M‖_F.
        spectral: ‖M‖₂.
    """
    return (fro / spectral) ** 2 if spectral else 0.0


def singular_range(matrix: Matrix) -> tuple[float, float]:
    """Return the largest and the smallest of the min(d_out, d_in) singular values; two nan if one is not finite.

    Lanczos iteration on the Gram matrix of the thin side gives σ_max², and on its inverse, by solves with its
    Cholesky factor, 1 / σ_min². Rounding leaves σ_min a relative error of about 2⁻⁵³ (σ_max / σ_min)²: where that
    ratio is above a thousand, the triangle of a QR decomposition, which takes thrice as long, stands in for both.
    """
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    if not np.isfinite(gram.trace()):
        return float("nan"), float("nan")
    if len(gram) >= _SMALL:
        try:
            factor = cholesky(gram, check_finite=False)
            largest, smallest = math.sqrt(_find_largest(gram)), _find_smallest(factor)
        except LinAlgError:  # singular, as far as rounding lets see
            largest, smallest = 0.0, 0.0
        if smallest * _CONDITION > largest:
            return largest, smallest
    return _triangular_range(_factor_qr(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T))


def _triangular_range(factor: Matrix) -> tuple[float, float]:
    """Return the largest and the smallest singular value of a triangular matrix."""
    if len(factor) < _SMALL:
        values = np.linalg.svd(factor, compute_uv=False)
        return float(values[0]), float(values[-1])
    return spectral_norm(factor), _find_smallest(factor) if factor.diagonal().all() else 0.0


def _find_largest(gram: Matrix) -> float:
    """Return the largest eigenvalue."""
    start = _draw_start(len(gram))
    return float(eigsh(gram, k=1, v0=start, return_eigenvectors=False, tol=_TOLERANCE)[0])


def _find_smallest(factor: Matrix) -> float:
    """Return the smallest singular value of an upper triangular matrix R, from the largest of (RᵀR)⁻¹."""

    def inverse(vector: Matrix) -> Matrix:
        solved = solve_triangular(factor, vector.ravel(), trans="T", check_finite=False)
        result: Matrix = solve_triangular(factor, solved, check_finite=False)
        return result

    size = len(factor)
    operator = LinearOperator((size, size), matvec=inverse, dtype=np.float64)
    top = eigsh(operator, k=1, v0=_draw_start(size), return_eigenvectors=False, tol=_TOLERANCE)
    return 1 / math.sqrt(top[0])


def condition_number(largest: float, smallest: float, shape: tuple[int, ...]) -> float:
    """Return σ_max / σ_min (PRUNE, arXiv 2405.16821), ∞ where the matrix is singular in double precision.

    Args:
        largest: σ_max.
        smallest: σ_min.
        shape: of the matrix: rounding alone leaves a singular one with σ_min up to max(shape) · 2⁻⁵² · σ_max.
    """
    if smallest <= max(shape) * np.finfo(np.float64).eps * largest:
        return float("inf")
    return largest / smallest


def cosine(first: Matrix | Factors, second: Matrix | Factors) -> float | None:
    """Return <A, B> / (‖A‖_F ‖B‖_F) of two matrices, each dense or as factors; None where one is zero.

    Of factors L Rᵀ and M Sᵀ, <A, B> is the sum of (LᵀM) ∘ (RᵀS).
    """
    sizes = frobenius(first) * frobenius(second)
    if sizes == 0:
        return None
    return float(np.clip(_inner(first, second) / sizes, -1.0, 1.0))


def _inner(first: Matrix | Factors, second: Matrix | Factors) -> float:
    if not isinstance(first, Factors):
        if isinstance(second, Factors):
            return _inner(second, first)
        return float(np.vdot(first, second))
    left, right = first.left.double().cpu().numpy(), first.right.double().cpu().numpy()
    if not isinstance(second, Factors):
        return float(np.vdot(left, second @ right))
    other, across = second.left.double().cpu().numpy(), second.right.double().cpu().numpy()
    return float(np.vdot(left.T @ other, right.T @ across))


def _factor_qr(matrix: Matrix) -> Matrix:
    """Return R of a QR decomposition."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def _draw_start(size: int) -> Matrix:
    return np.random.default_rng(0).standard_normal(size)
