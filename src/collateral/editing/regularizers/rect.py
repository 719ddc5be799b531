"""RECT: the largest relative changes of the weights stay (Gu et al. 2024, arXiv 2401.04700)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from collateral.editing.algorithms.element_selection import select_largest
from collateral.editing.ranges import Above, AtMost
from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class Rect:
    """Keep the elements with the largest delta_ij = |ΔW_ij| / |W_ij|, top k % within the matrix (equation 3).

    Where W is 0 and ΔW is not, delta is infinite; where ΔW is 0, delta is 0.

    Attributes:
        keep: percent of the matrix's elements that stay.
        reference: the W of |ΔW / W|: the weight at this edit, or the unedited one.
        within_layers: for editors of several layers: true regularises each layer's update before the next layer's
            is computed; false all of them afterwards.
    """

    keep: Annotated[float, Above(0), AtMost(100)] = 100
    reference: Literal["current", "original"] = "current"
    within_layers: bool = False

    kind: ClassVar[Kind] = "mask"

    @property
    def needs_original(self) -> bool:
        """Whether W_0 is read."""
        return self.reference == "original"

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return the mask of the largest relative changes."""
        if self.needs_original and original is not None:
            weight = original
        change = update.double().abs()
        score = torch.where(change == 0, 0.0, change / weight.double().abs())
        return select_largest(score, self.keep)


REGULARIZER = Rect
