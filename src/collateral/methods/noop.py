"""An editor that changes nothing: the check of the whole machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from collateral.delta import Delta
from collateral.editing import Edit, Prepared
from collateral.facts import Fact
from collateral.models import LanguageModel


@dataclass(frozen=True)
class Noop:
    """ΔW = 0: every ability and every probe must give exactly the unedited model's number."""

    batches: ClassVar[bool] = True

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
