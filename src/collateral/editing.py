"""What an editing method is given and what it returns: the boundary between a session and a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from collateral.delta import Delta
from collateral.errors import CollateralError
from collateral.facts import Fact
from collateral.models import LanguageModel
from collateral.moments import Moment, read_moment


@dataclass(frozen=True)
class Prepared:
    """What was computed once from the unedited model, and the seed of this edit.

    Attributes:
        templates: context templates; the first is the bare `"{}"`.
        moments: second-moment file of each layer that has one.
        step_norms: ||ΔW||_F of another editor's step, by fact_id (for placebo).
        seed: seed of this edit, a function of study seed and position alone.
    """

    templates: Sequence[str]
    moments: Mapping[int, Path] = field(default_factory=dict)
    step_norms: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    _loaded: dict[int, Moment] = field(default_factory=dict, repr=False, compare=False)

    def moment(self, layer: int) -> Moment:
        """Return the second moment of a layer's keys, read and factorised once.

        Raises:
            CollateralError: it was not prepared.
        """
        if layer not in self.moments:
            raise CollateralError(
                f"no second moment was prepared for layer {layer}; run the prepare stage for it"
            )
        if layer not in self._loaded:
            self._loaded[layer] = read_moment(self.moments[layer])
        return self._loaded[layer]


@dataclass(frozen=True)
class Edit:
    """What one editing operation computed.

    Attributes:
        delta: the update, not yet applied and not yet regularised.
        state: what the method carries to the next operation.
        record: numbers worth keeping (loss, steps, norms).
    """

    delta: Delta
    state: dict[str, Tensor]
    record: dict[str, float]


@runtime_checkable
class EditingMethod(Protocol):
    """A frozen dataclass whose fields are hyperparameters and whose call is the paper.

    Attributes:
        batches: whether one operation may edit several facts.
    """

    batches: ClassVar[bool]

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch."""

    def __call__(
        self, model: LanguageModel, facts: Sequence[Fact], prepared: Prepared, state: Mapping[str, Tensor]
    ) -> Edit:
        """Return the update for these facts; the model is left exactly as it was."""
