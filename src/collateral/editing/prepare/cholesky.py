"""Symmetric matrices by half: sums whose upper part is computed, and factors whose lower one is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.errors import CollateralError

_PANELS = 8  # of columns: (1 + 1/8) / 2 of KᵀK is computed; more of them make narrow products
_NARROW = 16  # of a triangle: (1 + 1/16) / 2 of it is kept


def _panels(size: int, count: int = _PANELS) -> Iterator[tuple[int, int]]:
    """Yield where each panel of columns begins and ends."""
    return pairwise(size * number // count for number in range(count + 1))


def add_upper(total: Float[Tensor, "d_in d_in"], keys: Float[Tensor, "rows window d_in"]) -> None:
    """Add Kᵀ K to the blocks of a sum on and above its diagonal."""
    flat = keys.reshape(-1, keys.shape[-1]).float()
    for begin, end in _panels(len(total)):
        total[begin:end, begin:] += flat[:, begin:end].T @ flat[:, begin:]


def mirror(total: Float[Tensor, "d_in d_in"]) -> None:
    """Copy what is above the diagonal to below it, a panel at a time."""
    for begin, end in _panels(len(total)):
        corner = total[begin:end, begin:end]
        corner.copy_(corner.triu() + corner.triu(1).T)
        total[end:, begin:end] = total[begin:end, end:].T


def factorize(matrix: Float[Tensor, "n n"], what: str) -> Float[Tensor, "n n"]:
    """Return the Cholesky factor of a symmetric matrix.

    Args:
        matrix: the matrix; overwritten with the factor where it lies by columns on a CPU.
        what: it is, for the message.

    Raises:
        CollateralError: the matrix is not positive definite.
    """
    if matrix.device.type == "cpu" and matrix.T.is_contiguous():
        failed = torch.empty((), dtype=torch.int32)
        factor, _ = torch.linalg.cholesky_ex(matrix, out=(matrix, failed))
    else:
        factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise CollateralError(
            f"the {what} is not positive definite; raise moments.tokens (at least 10 per dimension, here "
            f"{10 * len(matrix)}) or set mom2_ridge, e.g. 0.01"
        )
    found: Tensor = factor
    return found


@dataclass(frozen=True)
class Triangle:
    """A lower triangular matrix L by panels of columns, without most of what is above the diagonal.

    Attributes:
        panels: some columns of L each, from their diagonal down.
    """

    panels: tuple[Float[Tensor, "_ _"], ...]

    @classmethod
    def of(cls, factor: Float[Tensor, "n n"]) -> "Triangle":
        """Return a copy of L."""
        return cls(tuple(factor.T[a:b, a:].clone().T for a, b in _panels(len(factor), _NARROW)))

    def solve(self, columns: Float[Tensor, "n some"]) -> Float[Tensor, "n some"]:
        """Return (L Lᵀ)⁻¹ columns: panel by panel downwards, and up again."""
        found = columns.clone()
        spans = [slice(*span) for span in _panels(len(found), _NARROW)]
        for own, panel in zip(spans, self.panels, strict=True):
            square, rest = panel[: panel.shape[1]], panel[panel.shape[1] :]
            found[own] = torch.linalg.solve_triangular(square, found[own], upper=False)
            found[own.stop :] -= rest @ found[own]
        for own, panel in zip(reversed(spans), reversed(self.panels), strict=True):
            square, rest = panel[: panel.shape[1]], panel[panel.shape[1] :]
            known = found[own] - rest.T @ found[own.stop :]
            found[own] = torch.linalg.solve_triangular(square.T, known, upper=True)
        return found
