"""Randomly drawn changes stay: a control for RECT (Gu et al. 2024, arXiv 2401.04700, section 5.2)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from collateral.editing.algorithms.element_selection import count_kept
from collateral.editing.ranges import Above, AtMost
from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class Random:
    """Keep exactly k % of the elements, drawn with a seed of the edit and the matrix.

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
        """Return the mask of the elements that were drawn."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(update.numel(), generator=generator)
        mask = torch.zeros(update.numel(), dtype=torch.bool)
        mask[order[: count_kept(self.keep, update.numel())]] = True
        return mask.reshape(update.shape).to(update.device)


REGULARIZER = Random
