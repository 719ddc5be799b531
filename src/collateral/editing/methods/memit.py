"""MEMIT: mass-editing memory in a transformer (Meng et al. 2023, arXiv 2210.07229)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Factors
from collateral.editing.algorithms.multi_layer import Layer, edit_layers
from collateral.editing.algorithms.recursive_least_squares import compute_gain
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast, Increasing
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class Memit:
    """Insert a batch of key-value pairs into several MLP down projections.

        z_i = h_i + delta_i at the last layer L's block output: `value_optimization`           (equation 16)
        for l in layers, on the model with the earlier ones updated:                            (algorithm 1)
            R = Z - H_L, now;  K: keys at l, a mean over contexts                               (equations 18, 19)
            ΔW_l = R/(L - l + 1) Kᵀ (λ C + K Kᵀ)⁻¹                                              (equations 14, 20)

    L - l + 1 counts the layers that are still to be edited. With `sequential` (MEMIT-seq) the keys of all earlier
    operations are kept: λ C + Σ k kᵀ + K Kᵀ, so that a later edit leaves them alone as far as it can. A root of that
    sum's inverse is the state, in float64 (`recursive_least_squares`); no operation costs more than the first.

    Attributes:
        layers: decoder layers whose down projections are edited, increasing.
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||².
        clamp_norm_factor: bound of ||delta|| / ||h_0||.
        kl_factor: weight of the essence-drift term.
        mom2_update_weight: λ, weight of the second moment C; larger keeps more of the old memories.
        mom2_ridge: added to C's diagonal, as a share of its mean diagonal, for small token budgets.
        context_samples: sampled contexts beside the bare prompt, the last ones of the list; 0 takes all.
        sequential: keep the keys of earlier operations in the state.
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
    sequential: bool = False

    batches: ClassVar[bool] = True
    moments: ClassVar[bool] = True
    cost: ClassVar[Cost] = {
        "steps": "v_num_grad_steps",
        "texts": "contexts",
        "low_rank": True,
        "root": "sequential",
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
        """Return the update of each layer for all facts at once; the model is left as it was."""
        kept = dict(state)

        def closed_form(at: Layer) -> Factors:
            share = at.residual / at.remaining
            weights = self.mom2_update_weight, self.mom2_ridge
            if not self.sequential:
                return Factors(share, prepared.moment(at.number).damped_inverse(at.keys, *weights))

            def begin() -> Tensor:
                return prepared.moment(at.number).inverse_root(*weights, at.keys.device)

            return Factors(share, compute_gain(kept, at.number, at.keys, begin))

        return edit_layers(self, model, facts, prepared, kept, closed_form)


METHOD = Memit
