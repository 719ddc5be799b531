"""EMMET: equality-constrained mass model editing (Gupta et al. 2024, arXiv 2403.14236)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Factors
from collateral.editing.algorithms.multi_layer import Layer, edit_layers
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast, Increasing
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class Emmet:
    """Batch ROME: the update of least C-norm that maps every key exactly to its value.

        minimise tr(ΔW C ΔWᵀ)  subject to  (W + ΔW) K = V                                       (equation 6)
        ΔW_l = R/(L - l + 1) D⁻¹ Kᵀ C⁻¹,   D = Kᵀ C⁻¹ K                                         (equation 8)

    For one fact, one layer and one context this is ROME with second moments. With more facts than one, λ I is added
    to D, as in the released code, so that nearly parallel keys do not blow the update up.

    Attributes:
        layers: decoder layers whose down projections are edited, increasing.
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||².
        clamp_norm_factor: bound of ||delta|| / ||h_0||.
        kl_factor: weight of the essence-drift term.
        emmet_lambda: λ, in units of D's mean diagonal; 0 keeps the constraints exact.
        mom2_ridge: added to C's diagonal, as a share of its mean diagonal, for small token budgets.
        context_samples: sampled contexts beside the bare prompt, the last ones of the list; 0 takes all.
    """

    layers: Annotated[tuple[int, ...], Increasing()]
    v_num_grad_steps: Annotated[int, Above(0)] = 20
    v_lr: Annotated[float, Above(0)] = 0.5
    v_weight_decay: Annotated[float, AtLeast(0)] = 0.5
    clamp_norm_factor: Annotated[float, Above(0)] = 0.75
    kl_factor: Annotated[float, AtLeast(0)] = 0.0625
    emmet_lambda: Annotated[float, AtLeast(0)] = 0.0
    mom2_ridge: Annotated[float, AtLeast(0)] = 0.0
    context_samples: Annotated[int, AtLeast(0)] = 5

    batches: ClassVar[bool] = True
    moments: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"steps": "v_num_grad_steps", "texts": "contexts", "low_rank": True}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch."""
        return tuple(model.down_name(layer) for layer in self.layers)

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the update of each layer for all facts at once; the model is left as it was."""

        def closed_form(at: Layer) -> Factors:
            solved = prepared.moment(at.number).solve(at.keys, self.mom2_ridge)
            inner = at.keys.T @ solved
            if len(facts) > 1:
                inner += self.emmet_lambda * inner.diagonal().mean() * torch.eye(len(inner)).to(inner)
            return Factors(at.residual / at.remaining, torch.linalg.solve(inner, solved, left=False))

        return edit_layers(self, model, facts, prepared, dict(state), closed_form)


METHOD = Emmet
