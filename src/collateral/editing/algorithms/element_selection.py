"""Selection of a share of a matrix's elements, exact in count and deterministic in ties."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def count_kept(keep: float, elements: int) -> int:
    """Return ceil(keep / 100 * elements): the number of elements that `keep` percent stands for."""
    return math.ceil(keep * elements / 100)


def select_largest(score: Float[Tensor, "d_out d_in"], keep: float) -> Bool[Tensor, "d_out d_in"]:
    """Return the mask of the `keep` percent largest scores: exactly ceil of them, ties by row-major index."""
    flat = score.flatten()
    count = count_kept(keep, flat.numel())
    if count == flat.numel():
        return torch.ones_like(score, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    mask = flat > threshold
    ties = (flat == threshold).nonzero()[: count - int(mask.sum()), 0]
    mask[ties] = True
    return mask.reshape(score.shape)
