"""PRUNE: large singular values of the accumulated update are squeezed (Ma et al. 2024, arXiv 2405.16821)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from collateral.editing.ranges import Above
from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class Prune:
    """Squeeze the singular values of W_n - W_0 that exceed those of W_0.

        s' = log_b(s) - log_b(s_max) + s_max   for every singular value s of W_n - W_0 above s_max,

    s_max the largest singular value of W_0; smaller ones stay.

    Attributes:
        log_base: b, base of the logarithm; smaller squeezes less.
    """

    log_base: Annotated[float, Above(1)] = 2.718281828459045

    kind: ClassVar[Kind] = "accumulated"
    needs_original: ClassVar[bool] = True
    within_layers: ClassVar[bool] = False

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return the accumulated update with its large singular values squeezed."""
        assert original is not None
        left, values, right = torch.linalg.svd(update.double(), full_matrices=False)
        bound = torch.linalg.matrix_norm(original.double(), ord=2)
        squeezed = torch.log(values / bound) / math.log(self.log_base) + bound
        kept = torch.where(values > bound, squeezed, values)
        restrained: Tensor = ((left * kept) @ right).to(update.dtype)
        return restrained


REGULARIZER = Prune
