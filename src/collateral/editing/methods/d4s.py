"""D4S: dump for sequence (Huang et al. 2024, NeurIPS)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from collateral.data.facts import Fact
from collateral.editing.algorithms.multi_layer import Layer, edit_layers
from collateral.editing.algorithms.recursive_least_squares import compute_gain, refit
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast, Increasing
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class D4s:
    """Batch MEMIT over all edits so far, recomputed from W_0 at each edit, in memory that does not grow.

        A_l <- A_l + R Kᵀ,   B_l <- B_l + K Kᵀ
        ΔW_l = A_l/(L - l + 1) (B_l + λ C)⁻¹,   W_l = W_l(0) + ΔW_l

    so that the update *replaces* the previous one. Targets and residuals are taken on the unedited model; the keys of
    later layers with the earlier layers' whole history in place. In place of A and B the state has, in float64, a
    root of (B_l + λ C)⁻¹ and X_l = A_l (B_l + λ C)⁻¹, so that nothing is solved again (`recursive_least_squares`):

        X_l <- X_l + (R - X_l K) Kᵀ (B_l + λ C)⁻¹

    Attributes:
        layers: decoder layers whose down projections are edited, increasing.
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||².
        clamp_norm_factor: bound of ||delta|| / ||h_0||.
        kl_factor: weight of the essence-drift term.
        mom2_update_weight: λ, weight of the second moment C.
        mom2_ridge: added to C's diagonal, as a share of its mean diagonal, for small token budgets.
        context_samples: sampled contexts beside the bare prompt, the last ones of the list; 0 takes all.
        variant: `released` measures R once, before the loop over layers, and still divides it by the layers left;
            `remeasured` measures it before each layer, as MEMIT does, and adds to A the share assigned to the layer.
    """

    layers: Annotated[tuple[int, ...], Increasing()]
    v_num_grad_steps: Annotated[int, Above(0)] = 25
    v_lr: Annotated[float, Above(0)] = 0.5
    v_weight_decay: Annotated[float, AtLeast(0)] = 0.5
    clamp_norm_factor: Annotated[float, Above(0)] = 0.75
    kl_factor: Annotated[float, AtLeast(0)] = 0.0625
    mom2_update_weight: Annotated[float, Above(0)] = 15000.0
    mom2_ridge: Annotated[float, AtLeast(0)] = 0.0
    context_samples: Annotated[int, AtLeast(0)] = 5
    # ASSUME: the paper's equations do not say whether R is measured again for each layer; its code does not
    variant: Literal["released", "remeasured"] = "released"

    batches: ClassVar[bool] = True
    moments: ClassVar[bool] = True
    replaces: ClassVar[bool] = True
    cost: ClassVar[Cost] = {
        "steps": "v_num_grad_steps",
        "texts": "contexts",
        "root": True,
        "factorization": 1.33,
    }

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
        """Return the update of each layer, against W_0, for all edits so far; the model must be at W_0."""
        kept = dict(state)
        again = self.variant == "remeasured"

        def closed_form(at: Layer) -> Tensor:
            share = at.residual / at.remaining if again else at.residual

            def begin() -> Tensor:
                moment = prepared.moment(at.number)
                return moment.inverse_root(self.mom2_update_weight, self.mom2_ridge, at.keys.device)

            gain = compute_gain(kept, at.number, at.keys, begin)
            fitted = refit(kept, at.number, at.keys, share, gain)
            return fitted if again else fitted / at.remaining

        return edit_layers(self, model, facts, prepared, kept, closed_form, remeasured=again)


METHOD = D4s
