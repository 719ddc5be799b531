"""Largest changes stay: a control for RECT, which divides them by the weight."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from collateral.editing.algorithms.element_selection import select_largest
from collateral.editing.ranges import Above, AtMost
from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class Magnitude:
    """Keep the elements with the largest |ΔW|, top k % within the matrix.

    Attributes:
        keep: percent of the matrix's elements that stay.
        within_layers: for editors of several layers: true regularises each layer's update before the next layer's
            is computed; false all of them afterwards.
    """

    keep: Annotated[float, Above(0), AtMost(100)] = 100
    within_layers: bool = False

    kind: ClassVar[Kind] = "mask"
    needs_original: ClassVar[bool] = False

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return the mask of the largest changes."""
        return select_largest(update.double().abs(), self.keep)


REGULARIZER = Magnitude
