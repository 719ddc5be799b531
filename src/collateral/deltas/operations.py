"""What a link did to each parameter, operation by operation, in factors; and the same done again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from collateral.deltas.low_rank import Factors, row_blocks, sum_outer_products


@dataclass(frozen=True)
class Operation:
    """One operation's update of a matrix as the tensor is stored: its rows and columns, in main memory.

    Attributes:
        left: of the rows.
        right: of the columns.
        kept: the bits of the mask, eight to a byte, each row from a byte on; None for no mask.
    """

    left: Float[Tensor, "rank rows"]
    right: Float[Tensor, "rank columns"]
    kept: UInt8[Tensor, "rows bytes"] | None = None

    @property
    def bytes(self) -> int:
        """The bytes of factors and mask."""
        return self.left.nbytes + self.right.nbytes + (0 if self.kept is None else self.kept.nbytes)

    def rows(self, wanted: slice) -> Float[Tensor, "some columns"]:
        """Return the update of some rows."""
        product = sum_outer_products(self.left[:, wanted], self.right)
        if self.kept is None:
            return product
        mask = np.unpackbits(self.kept[wanted].numpy(), axis=1, count=self.right.shape[1])
        return torch.where(torch.from_numpy(mask.view(np.bool_)), product, 0.0)


def make_operation(update: Factors, transposed: bool) -> Operation:
    """Return an update as an operation on the stored tensor, which is Wᵀ in some families."""
    left, right, mask = update.left, update.right, update.mask
    if transposed:
        left, right, mask = right, left, None if mask is None else mask.T
    kept = None if mask is None else torch.from_numpy(np.packbits(mask.cpu().numpy(), axis=1))
    return Operation(left.detach().cpu().T.contiguous(), right.detach().cpu().T.contiguous(), kept)


def apply_operations(before: Float[Tensor, "rows columns"], operations: Sequence[Operation]) -> Tensor:
    """Return the tensor after the operations: W <- round(W + ΔW) for each, summed in float64, as `Delta.apply` does.

    A block of rows goes through all operations before the next, so that no update exists in full.
    """
    after = before.detach().cpu().clone(memory_format=torch.contiguous_format)
    for rows in row_blocks(after):
        live = after[rows]
        for operation in operations:
            live = (live.double() + operation.rows(rows).double()).to(after.dtype)
        after[rows] = live
    return after


class OperationLog:
    """The operations of a link so far, as long as factors state all of them in less room than the parameters."""

    def __init__(self, *, open_: bool = True) -> None:
        self._operations: dict[str, list[Operation]] | None = {} if open_ else None

    def add(self, name: str, update: object, stored: Tensor, transposed: bool) -> None:
        """Note one operation's update of a parameter."""
        if self._operations is None:
            return
        if not isinstance(update, Factors) or not update.ordered:
            self._operations = None  # something was done that no factors state
            return
        operations = self._operations.setdefault(name, [])
        operations.append(make_operation(update, transposed))
        if (
            sum(operation.bytes for operation in operations) > stored.nbytes
        ):  # the elements that differ take less
            self._operations = None

    @property
    def operations(self) -> Mapping[str, Sequence[Operation]] | None:
        """All operations of every touched parameter, in order; None where factors do not state them."""
        return self._operations
