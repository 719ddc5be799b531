"""Principal components: the update is compressed to a share of its rank (arXiv 2401.04700, section 5.2)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from collateral.editing.algorithms.element_selection import count_kept
from collateral.editing.ranges import Above, AtMost
from collateral.editing.regularizer import Kind, Matrix


@dataclass(frozen=True)
class Pca:
    """Compress ΔW to k % of the full rank.

    The paper does not say which matrix is meant. `svd`: the first ceil(k % of min(d_out, d_in)) singular triplets.
    `rows`: PCA of the rows of ΔW, mean added back. `released`: what the published code does, the PCA scores of ΔWᵀ
    written into the first columns, without the way back.

    Attributes:
        keep: percent of the rank that stays.
        variant: truncated SVD (svd), PCA of the rows (rows), or what the published code does (released).
        within_layers: for editors of several layers: true regularises each layer's update before the next layer's
            is computed; false all of them afterwards.
    """

    keep: Annotated[float, Above(0), AtMost(100)] = 100
    variant: Literal["svd", "rows", "released"] = "svd"
    within_layers: bool = False

    kind: ClassVar[Kind] = "projection"
    needs_original: ClassVar[bool] = False

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return the compressed update."""
        matrix = update.double()
        rank = count_kept(self.keep, min(matrix.shape))
        if self.variant == "svd":
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            result = (left[:, :rank] * values[:rank]) @ right[:rank]
        elif self.variant == "rows":
            mean = matrix.mean(dim=0, keepdim=True)
            left, values, right = torch.linalg.svd(matrix - mean, full_matrices=False)
            result = (left[:, :rank] * values[:rank]) @ right[:rank] + mean
        else:
            columns = min(count_kept(self.keep, matrix.shape[0]), min(matrix.shape))
            samples = matrix.T - matrix.T.mean(dim=0, keepdim=True)
            left, values, right = torch.linalg.svd(samples, full_matrices=False)
            # ASSUME: each component's largest loading is positive, as in scikit-learn; svd itself leaves signs open
            loadings = right.gather(1, right.abs().argmax(dim=1, keepdim=True))[:, 0].sign()
            scores = left * values * loadings
            result = torch.zeros_like(matrix)
            result[:columns] = scores[:, :columns].T
        compressed: Tensor = result.to(update.dtype)
        return compressed


REGULARIZER = Pca
