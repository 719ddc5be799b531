"""AlphaEdit: null-space constrained editing (Fang et al. 2025, arXiv 2410.02355)."""

import math
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
class Alphaedit:
    """MEMIT's residuals, written only where the preserved knowledge has no keys.

        P = U Uᵀ, U: eigenvectors of C whose eigenvalue is below a threshold                    (equations 7, 8)
        ΔW_l = R/(L - l + 1) Kᵀ P (K_p K_pᵀ P + K Kᵀ P + L2 I)⁻¹                                (equation 13)

    K_p are the keys of all earlier operations. The system is solved within U's span, where it is symmetric and
    positive definite: ΔW = R Kᵀ U (Uᵀ (K_p K_pᵀ + K Kᵀ) U + L2 I)⁻¹ Uᵀ. The state is a root of the whole product
    U (...)⁻¹ Uᵀ, in float64 (`recursive_least_squares`), which begins as U/√L2; later ones need neither C nor U.

    Attributes:
        layers: decoder layers whose down projections are edited, increasing.
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||².
        clamp_norm_factor: bound of ||delta|| / ||h_0||.
        kl_factor: weight of the essence-drift term.
        nullspace_threshold: eigenvalues of C below it count as null.
        l2: L2, weight of the update's own norm.
        context_samples: sampled contexts beside the bare prompt, the last ones of the list; 0 takes all.
    """

    layers: Annotated[tuple[int, ...], Increasing()]
    v_num_grad_steps: Annotated[int, Above(0)] = 25
    v_lr: Annotated[float, Above(0)] = 0.5
    v_weight_decay: Annotated[float, AtLeast(0)] = 0.5
    clamp_norm_factor: Annotated[float, Above(0)] = 0.75
    kl_factor: Annotated[float, AtLeast(0)] = 0.0625
    nullspace_threshold: Annotated[float, Above(0)] = 0.02
    l2: Annotated[float, Above(0)] = 10.0
    context_samples: Annotated[int, AtLeast(0)] = 5

    batches: ClassVar[bool] = True
    moments: ClassVar[bool] = True
    cost: ClassVar[Cost] = {
        "steps": "v_num_grad_steps",
        "texts": "contexts",
        "low_rank": True,
        "root": True,
        "factorization": 10.0,
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
            def begin() -> Tensor:
                basis = prepared.moment(at.number).null_space(self.nullspace_threshold, at.keys.device)
                return basis / math.sqrt(self.l2)

            return Factors(at.residual / at.remaining, compute_gain(kept, at.number, at.keys, begin))

        return edit_layers(self, model, facts, prepared, kept, closed_form)


METHOD = Alphaedit
