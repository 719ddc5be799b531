"""A random rank-one update of the same size as a named editor's: harm that comes from size alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, Factors
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.editing.ranges import AtLeast
from collateral.errors import CollateralError
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class Placebo:
    """ΔW = ||ΔW_like||_F a bᵀ / (||a|| ||b||), a and b standard normal, drawn anew for each edit.

    Attributes:
        like: name of the editor in the config whose step norms are taken, edit by edit.
        layer: decoder layer whose down projection is changed (0 is the first).
    """

    like: str
    layer: Annotated[int, AtLeast(0)]

    batches: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"low_rank": True}

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
        """Return the random update of the same Frobenius norm as the named editor's for these facts."""
        name = model.down_name(self.layer)
        matrix = model.matrix(name)
        d_out, d_in = matrix.shape
        generator = torch.Generator().manual_seed(prepared.seed)
        a = torch.randn(d_out, 1, generator=generator, dtype=torch.float64)
        b = torch.randn(d_in, 1, generator=generator, dtype=torch.float64)
        missing = [fact.fact_id for fact in facts if fact.fact_id not in prepared.step_norms]
        if missing:
            raise CollateralError(
                f"placebo like '{self.like}': that editor has no step for the fact '{missing[0]}'; give both "
                "editors the same checkpoints"
            )
        norm = prepared.step_norms[facts[0].fact_id]
        left = a * (norm / (a.norm() * b.norm()))
        return Edit(Delta({name: Factors(left.to(matrix.device), b.to(matrix.device))}), dict(state), {})


METHOD = Placebo
