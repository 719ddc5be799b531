"""A low-rank update as its factors, with a mask where a regulariser thinned it, and the product of factors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collateral.deltas.limits import MOST_RANKS

_BLOCK = {"cpu": 2**15}  # elements that are computed at once: two such blocks stay in a core's cache
_LARGE_BLOCK = 2**24  # on other devices


@dataclass(frozen=True)
class Factors:
    """A low-rank update `left @ right.T` of a `d_out x d_in` matrix, zero where its mask is not set.

    Attributes:
        left: of the rows.
        right: of the columns.
        mask: which elements a regulariser left; None for all of them.
    """

    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "d_in rank"]
    mask: Bool[Tensor, "d_out d_in"] | None = None

    @property
    def ordered(self) -> bool:
        """Whether the product has the same bits on every machine, device and number of threads."""
        return self.left.shape[1] <= MOST_RANKS and self.left.dtype in (torch.float32, torch.float64)

    def masked(self, mask: Bool[Tensor, "d_out d_in"]) -> "Factors":
        """Return the update with fewer elements."""
        return replace(self, mask=mask if self.mask is None else self.mask & mask)

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """Return the product, masked."""
        left, right = self.left.detach(), self.right.detach()
        if self.ordered:
            product = left.new_empty(left.shape[0], right.shape[0])
            across, down = right.T.contiguous(), left.T
            for rows in row_blocks(product):
                product[rows] = sum_outer_products(down[:, rows], across)
        else:
            product = left @ right.T
        return product if self.mask is None else torch.where(self.mask, product, 0.0)


def row_blocks(matrix: Float[Tensor, "d_out d_in"]) -> Iterator[slice]:
    """Yield the rows of a matrix in blocks; how large they are changes speed and nothing else."""
    height, width = matrix.shape
    rows = max(1, _BLOCK.get(matrix.device.type, _LARGE_BLOCK) // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def sum_outer_products(left: Float[Tensor, "rank rows"], right: Float[Tensor, "rank columns"]) -> Tensor:
    """Return the sum of the outer products, in order, in the factors' own dtype.

    Each term is rounded before it is added, as multiplication and addition are two operations, so that no machine
    fuses them: the sum is the same everywhere, as that of a matrix product is not.
    """
    if not len(left):
        return left.new_zeros(left.shape[1], right.shape[1])
    total = left[0][:, None] * right[0]
    for column, row in zip(left[1:], right[1:], strict=True):
        total += column[:, None] * row
    return total
