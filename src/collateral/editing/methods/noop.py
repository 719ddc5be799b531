"""An editor that changes nothing: the check of the whole machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared
from collateral.models.language_model import LanguageModel


@dataclass(frozen=True)
class Noop:
    """ΔW = 0: every ability and every probe must give exactly the unedited model's number."""

    batches: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"changes": "nothing"}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return no parameter."""
        return ()

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the empty update."""
        return Edit(Delta(), dict(state), {})


METHOD = Noop
