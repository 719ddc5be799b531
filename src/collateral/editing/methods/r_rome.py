"""R-ROME: ROME with one and the same key everywhere (Gupta et al. 2024, arXiv 2403.07175)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from collateral.data.facts import Fact
from collateral.editing.algorithms.rank_one import Pair, insert
from collateral.editing.algorithms.value_optimization import Target
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import Above, AtLeast
from collateral.errors import CollateralError
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class RRome:
    """ROME whose direction, denominator and value all belong to one key k_e.

        u = C⁻¹ k_e / ||C⁻¹ k_e||,   ΔW = (v* - W k_e) uᵀ / (k_eᵀ u),   v* - W k_e = delta

    ROME itself takes the mean key over contexts for u and the bare prompt's key for the rest; when the two disagree,
    kᵀu is small and a single edit can ruin the model. `keys` chooses k_e; with `sampled` it is C-ROME's prefixed key
    (Yang et al. 2024, arXiv 2406.11263), whose other half, a prefix before test prompts, is not part of an edit.

    Attributes:
        keys: k_e is the mean over all context templates (`prefixed`), over the sampled ones without the bare prompt
            (`sampled`), or the bare prompt's alone (`bare`).
        variant: `released` subtracts the mean output of the contexts from the bare prompt's v*, so that the update
            also carries the difference between the two outputs.
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
    keys: Literal["prefixed", "sampled", "bare"] = "prefixed"
    variant: Literal["paper", "released"] = "paper"
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

    def _pair(self, target: Target) -> Pair:
        chosen = {"prefixed": slice(0, None), "sampled": slice(1, None), "bare": slice(0, 1)}[self.keys]
        keys, outputs = target.keys[chosen].float(), target.values[chosen].float()
        if not len(keys):
            raise CollateralError(
                "r_rome: keys is 'sampled', but there are no sampled contexts; see contexts.lengths"
            )
        key, shift = keys.mean(dim=0), target.delta
        if self.variant == "released":
            shift = shift + target.values[0].float() - outputs.mean(dim=0)
        return Pair(key, key, shift, "the model has collapsed: lower the editor's last checkpoint")


METHOD = RRome
