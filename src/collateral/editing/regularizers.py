"""Regularisers of an update: pure functions (W, W_0, ΔW) -> ΔW, exact in count and deterministic in ties.

All but `prune` act on the update of one operation; `prune` acts on the accumulated one, W_n - W_0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collateral.errors import CollateralError, unknown_name

Matrix = Float[Tensor, "d_out d_in"]
Mask = Bool[Tensor, "d_out d_in"]


def kept_count(keep: float, elements: int) -> int:
    """Return ceil(keep / 100 * elements): the number of elements that `keep` percent stands for."""
    return math.ceil(keep * elements / 100)


def top_share(score: Matrix, keep: float) -> Mask:
    """Return the mask of the `keep` percent largest scores: exactly ceil of them, ties by row-major index."""
    flat = score.flatten()
    count = kept_count(keep, flat.numel())
    if count == flat.numel():
        return torch.ones_like(score, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    mask = flat > threshold
    ties = (flat == threshold).nonzero()[: count - int(mask.sum()), 0]
    mask[ties] = True
    return mask.reshape(score.shape)


def thinned(update: Matrix, mask: Mask) -> Matrix:
    """Return ΔW where the mask is set, and zero elsewhere."""
    return torch.where(mask, update, torch.zeros_like(update))


def rect_mask(weight: Matrix, update: Matrix, keep: float) -> Mask:
    """Return the mask of the `keep` percent largest relative changes.

    delta_ij = |ΔW_ij| / |W_ij|, top k % within the matrix (RECT, arXiv 2401.04700, equation 3). Where W is 0
    and ΔW is not, delta is infinite; where ΔW is 0, delta is 0.
    """
    change = update.double().abs()
    score = torch.where(change == 0, 0.0, change / weight.double().abs())
    return top_share(score, keep)


def rect(weight: Matrix, update: Matrix, keep: float) -> Matrix:
    """Return ΔW where `rect_mask` is set."""
    return thinned(update, rect_mask(weight, update, keep))


def magnitude_mask(update: Matrix, keep: float) -> Mask:
    """Return the mask of the `keep` percent largest |ΔW|: a control for RECT, which divides by |W|."""
    return top_share(update.double().abs(), keep)


def random_mask(update: Matrix, keep: float, seed: int) -> Mask:
    """Return a mask of exactly `keep` percent of the elements, drawn with a seed (RECT section 5.2)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(update.numel(), generator=generator)
    mask = torch.zeros(update.numel(), dtype=torch.bool)
    mask[order[: kept_count(keep, update.numel())]] = True
    return mask.reshape(update.shape).to(update.device)


def random(update: Matrix, keep: float, seed: int) -> Matrix:
    """Return ΔW where `random_mask` is set."""
    return thinned(update, random_mask(update, keep, seed))


def pca(update: Matrix, keep: float, variant: str) -> Matrix:
    """Return ΔW compressed by principal components to `keep` percent of the full rank (RECT section 5.2).

    The paper does not say which matrix is meant. `svd`: the first ceil(keep % of min(d_out, d_in)) singular
    triplets. `rows`: PCA of the rows of ΔW, mean added back. `released`: what the published code does, the
    PCA scores of ΔWᵀ written into the first columns, without the way back.
    """
    matrix = update.double()
    rank = kept_count(keep, min(matrix.shape))
    if variant == "svd":
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        result = (left[:, :rank] * values[:rank]) @ right[:rank]
    elif variant == "rows":
        mean = matrix.mean(dim=0, keepdim=True)
        left, values, right = torch.linalg.svd(matrix - mean, full_matrices=False)
        result = (left[:, :rank] * values[:rank]) @ right[:rank] + mean
    else:
        columns = min(kept_count(keep, matrix.shape[0]), min(matrix.shape))
        samples = matrix.T - matrix.T.mean(dim=0, keepdim=True)
        left, values, right = torch.linalg.svd(samples, full_matrices=False)
        # ASSUME: each component's largest loading is positive, as in scikit-learn; svd itself leaves signs open
        loadings = right.gather(1, right.abs().argmax(dim=1, keepdim=True))[:, 0].sign()
        scores = left * values * loadings
        result = torch.zeros_like(matrix)
        result[:columns] = scores[:, :columns].T
    compressed: Tensor = result.to(update.dtype)
    return compressed


def prune(original: Matrix, update: Matrix, log_base: float) -> Matrix:
    """Return the accumulated update with its large singular values squeezed (PRUNE, arXiv 2405.16821).

        s' = log_b(s) - log_b(s_max) + s_max   for every singular value s of ΔW above s_max,

    s_max the largest singular value of W_0; smaller ones stay. ΔW is W_n - W_0, not one edit's update.
    """
    left, values, right = torch.linalg.svd(update.double(), full_matrices=False)
    bound = torch.linalg.matrix_norm(original.double(), ord=2)
    squeezed = torch.log(values / bound) / math.log(log_base) + bound
    kept = torch.where(values > bound, squeezed, values)
    restrained: Tensor = ((left * kept) @ right).to(update.dtype)
    return restrained


@dataclass(frozen=True)
class Regularizer:
    """A named regulariser with its settings.

    Attributes:
        name: none, rect, random, pca, magnitude, or prune, which acts on the accumulated update.
        keep: percent of elements (of rank, for pca) that stay; 0 < keep <= 100.
        reference: the W of rect's |ΔW / W|: the weight at this edit, or W_0.
        variant: pca's reading of the paper.
        within_layers: whether an editor of several layers computes the later ones on regularised earlier ones.
        log_base: of prune.
    """

    name: str = "none"
    keep: float = 100.0
    reference: Literal["current", "original"] = "current"
    variant: Literal["svd", "rows", "released"] = "svd"
    within_layers: bool = False
    log_base: float = math.e

    def __post_init__(self) -> None:
        if self.name not in REGULARIZERS:
            raise unknown_name("regularizer", self.name, REGULARIZERS)
        if not 0 < self.keep <= 100:
            raise CollateralError(
                f"regularizer '{self.name}': keep is {self.keep}; it must be above 0, at most 100"
            )

    @property
    def needs_original(self) -> bool:
        """Whether W_0 is read."""
        return self.accumulated or (self.name == "rect" and self.reference == "original")

    @property
    def accumulated(self) -> bool:
        """Whether it acts on W_n - W_0 at a checkpoint, instead of on each operation's update."""
        return self.name == "prune"

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Matrix:
        """Return the regularised update of one matrix.

        Args:
            weight: W at this edit.
            original: W_0; may be None where `needs_original` is false.
            update: ΔW.
            seed: seed of this edit and matrix.
        """
        mask = self.mask(weight, original, update, seed)
        if mask is not None:
            return thinned(update, mask)
        return _CHANGES[self.name](self, self._reference(weight, original), update, seed)

    def mask(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Mask | None:
        """Return which elements of an update stay as they are, the others being zero; None where it is not so simple.

        The arguments are those of a call.
        """
        if self.name not in _MASKS:
            return None
        return _MASKS[self.name](self, self._reference(weight, original), update, seed)

    def _reference(self, weight: Matrix, original: Matrix | None) -> Matrix:
        return original if self.needs_original and original is not None else weight


_Rule = Callable[[Regularizer, Tensor, Tensor, int], Tensor]
_MASKS: dict[str, _Rule] = {
    "rect": lambda own, weight, update, _: rect_mask(weight, update, own.keep),
    "random": lambda own, _, update, seed: random_mask(update, own.keep, seed),
    "magnitude": lambda own, _, update, __: magnitude_mask(update, own.keep),
}
_CHANGES: dict[str, _Rule] = {
    "none": lambda _, __, update, ___: update,
    "pca": lambda own, _, update, __: pca(update, own.keep, own.variant),
    "prune": lambda own, original, update, _: prune(original, update, own.log_base),
}
REGULARIZERS = ("none", "rect", "random", "pca", "magnitude", "prune")
