"""PMET: precise model editing in a transformer (Li et al. 2024, arXiv 2308.08742)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Factors
from collateral.editing.algorithms.multi_layer import Layer, edit_layers
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast, Increasing
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class Pmet:
    """Optimise attention and MLP outputs together, write the MLP's share alone.

        delta_attn, delta_mlp at the last layer's two outputs: `value_optimization`             (equation 6)
        R = m_0 + delta_mlp - MLP output of the last layer, now, before each layer
        ΔW_l = R/√(L - l + 1) Kᵀ (λ C + K Kᵀ)⁻¹                                                 (equations 4, 8)

    The attention's delta takes up what the MLP should not learn and is then dropped. The optimisation ends early
    once every target token is the argmax and the drift is small (see `Objective.relaxed`).

    Attributes:
        layers: decoder layers whose down projections are edited, increasing.
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||², of both deltas.
        clamp_norm_factor: bound of ||delta|| / ||h_0||, for each.
        kl_factor: weight of the essence-drift term.
        nll_factor: weight of the likelihood term.
        mom2_update_weight: λ, weight of the second moment C.
        mom2_ridge: added to C's diagonal, as a share of its mean diagonal, for small token budgets.
        context_samples: sampled contexts beside the bare prompt, the last ones of the list; 0 takes all.
    """

    layers: Annotated[tuple[int, ...], Increasing()]
    v_num_grad_steps: Annotated[int, Above(0)] = 20
    v_lr: Annotated[float, Above(0)] = 0.5
    v_weight_decay: Annotated[float, AtLeast(0)] = 0.5
    clamp_norm_factor: Annotated[float, Above(0)] = 1.0
    kl_factor: Annotated[float, AtLeast(0)] = 0.0625
    nll_factor: Annotated[float, Above(0)] = 1.0
    mom2_update_weight: Annotated[float, Above(0)] = 15000.0
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
            keys = prepared.moment(at.number).damped_inverse(
                at.keys, self.mom2_update_weight, self.mom2_ridge
            )
            return Factors(at.residual / at.remaining**0.5, keys)

        return edit_layers(
            self,
            model,
            facts,
            prepared,
            dict(state),
            closed_form,
            sites=("attention", "mlp"),
            nll_factor=self.nll_factor,
            relaxed=True,
        )


METHOD = Pmet
