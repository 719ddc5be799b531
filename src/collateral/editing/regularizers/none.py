"""No regulariser: every update stays as the method computed it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class NoRegularizer:
    """The identity."""

    kind: ClassVar[Kind] = "identity"
    needs_original: ClassVar[bool] = False
    within_layers: ClassVar[bool] = False

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return ΔW."""
        return update


REGULARIZER = NoRegularizer
