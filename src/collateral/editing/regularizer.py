"""What a regulariser is: the boundary between a session and the files in `regularizers/`."""

from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from collateral.deltas.update import Factors, Update, dense

Matrix = Float[Tensor, "d_out d_in"]
Mask = Bool[Tensor, "d_out d_in"]
Kind = Literal["identity", "mask", "projection", "accumulated"]


@runtime_checkable
class Regularizer(Protocol):
    """A frozen dataclass whose fields are settings and whose call is the definition; deterministic, also in ties.

    Attributes:
        kind: what a call returns. `mask`: which elements of one operation's update stay, the others being zero;
            `projection`: another update in its place; `accumulated`: another W_n - W_0 at a checkpoint, in place of
            the one that has accumulated, while the editing goes on from W_n itself; `identity`: nothing is called.
    """

    kind: ClassVar[Kind]

    @property
    def needs_original(self) -> bool:
        """Whether a mask or a projection reads W_0."""

    @property
    def within_layers(self) -> bool:
        """Whether an editor of several layers computes the later ones on regularised earlier ones."""

    def __call__(self, weight: Matrix, original: Matrix | None, update: Matrix, seed: int) -> Tensor:
        """Return what `kind` says of one matrix.

        Args:
            weight: W at this edit.
            original: W_0; may be None where it is not needed.
            update: ΔW.
            seed: seed of this edit and matrix.
        """


def regularize(
    regularizer: Regularizer, weight: Matrix, original: Matrix | None, update: Update, seed: int
) -> Update:
    """Return the regularised update of one matrix by one operation; the arguments are those of a call."""
    if regularizer.kind in ("identity", "accumulated"):
        return update
    full = dense(update)
    result = regularizer(weight, original, full, seed)
    if regularizer.kind == "projection":
        return result
    return update.masked(result) if isinstance(update, Factors) else keep_masked(full, result)


def keep_masked(update: Matrix, mask: Mask) -> Matrix:
    """Return ΔW where a mask is set, and zero elsewhere."""
    return torch.where(mask, update, torch.zeros_like(update))
