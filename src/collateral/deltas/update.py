"""A weight update: {parameter: ΔW}, dense or factored, and its application with the exact rounding."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.deltas.low_rank import Factors
from collateral.models.language_model import LanguageModel

__all__ = ["Delta", "Factors", "Update", "dense", "norm", "restore", "snapshot"]


Update = Tensor | Factors


def dense(update: Update) -> Tensor:
    """Return an update as a full tensor."""
    return update.dense() if isinstance(update, Factors) else update


def norm(update: Update) -> float:
    """Return the Frobenius norm of an update; of factors without a mask by tr(LᵀL RᵀR), without their product."""
    if isinstance(update, Factors) and update.mask is None:
        left, right = update.left.double(), update.right.double()
        square = ((left.T @ left) * (right.T @ right)).sum()
        return float(square.clamp_min(0.0).sqrt())
    return float(torch.linalg.vector_norm(dense(update), dtype=torch.float64))  # without a copy in float64


@dataclass(frozen=True)
class Delta:
    """Updates of named parameters: matrices `d_out x d_in` (see `LanguageModel.matrix`), biases `d_out`."""

    updates: Mapping[str, Update] = field(default_factory=dict)

    def dense(self, name: str) -> Float[Tensor, "*shape"]:
        """Return one update in full."""
        return dense(self.updates[name])

    def norm(self) -> float:
        """Return the Frobenius norm over all parameters together."""
        return float(sum(norm(update) ** 2 for update in self.updates.values()) ** 0.5)

    def apply(self, model: LanguageModel) -> None:
        """Add the update: W <- round(W + ΔW), summed in float64 and rounded once to the weight's dtype."""
        for name in self.updates:
            matrix = model.matrix(name)
            total = matrix.double() + self.dense(name).double()
            matrix.copy_(total.to(matrix.dtype))


def snapshot(model: LanguageModel, names: Mapping[str, object] | tuple[str, ...]) -> dict[str, Tensor]:
    """Return copies of parameters as they are stored (not transposed)."""
    return {name: model.network.get_parameter(name).data.clone() for name in names}


def restore(model: LanguageModel, saved: Mapping[str, Tensor]) -> None:
    """Put a snapshot back, bit for bit."""
    with torch.no_grad():
        for name, values in saved.items():
            model.network.get_parameter(name).data.copy_(values)
