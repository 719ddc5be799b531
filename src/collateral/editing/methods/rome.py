"""ROME: rank-one model editing (Meng et al. 2022, arXiv 2202.05262)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from collateral.data.facts import Fact
from collateral.editing.algorithms.rank_one import Pair, insert
from collateral.editing.algorithms.value_optimization import Target
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast
from collateral.models.language_model import LanguageModel

_REMEDY = "the key of the bare prompt is orthogonal to the mean key: let the prompt start before its subject"


@dataclass(frozen=True)
class Rome:
    """Insert one key-value pair into one MLP down projection.

        u = C⁻¹ k̄ / ||C⁻¹ k̄||      k̄: mean key of the subject over the context templates   (section 3.1, step 1)
        v* = h_0 + delta            delta: `algorithms.value_optimization`, equation 4                    (step 2)
        ΔW = (v* - W k) uᵀ / (kᵀ u)  k: key of the bare prompt                                 (equation 2)

    so that (W + ΔW) k = v* exactly for the bare prompt. Without `mom2_adjustment`, C = I, which is what
    EasyEdit's settings and the RECT paper use.

    Attributes:
        layer: decoder layer whose down projection is edited (0 is the first).
        v_num_grad_steps: loss evaluations of the value optimisation.
        v_lr: Adam's learning rate.
        v_weight_decay: factor of ||delta|| / ||h_0||².
        clamp_norm_factor: bound of ||delta|| / ||h_0||.
        kl_factor: weight of the essence-drift term.
        mom2_adjustment: use the second moment C of the keys; false means C = I.
        mom2_ridge: added to C's diagonal, as a share of its mean diagonal, for small token budgets.
    """

    layer: Annotated[int, AtLeast(0)]
    v_num_grad_steps: Annotated[int, Above(0)] = 20
    v_lr: Annotated[float, Above(0)] = 0.5
    v_weight_decay: Annotated[float, AtLeast(0)] = 0.5
    clamp_norm_factor: Annotated[float, Above(0)] = 4.0
    kl_factor: Annotated[float, AtLeast(0)] = 0.0625
    mom2_adjustment: bool = False
    mom2_ridge: Annotated[float, AtLeast(0)] = 0.0

    batches: ClassVar[bool] = False
    cost: ClassVar[Cost] = {"steps": "v_num_grad_steps", "texts": "contexts", "low_rank": True}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch."""
        return (model.down_name(self.layer),)

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the rank-one update for one fact; the model is left as it was."""
        (fact,) = facts
        return insert(self, model, fact, prepared, state, self._pair)

    @staticmethod
    def _pair(target: Target) -> Pair:
        keys = target.keys.float()
        # v* - W k = delta, because h_0 is the MLP output at k itself
        return Pair(keys.mean(dim=0), keys[0], target.delta, _REMEDY)


METHOD = Rome
