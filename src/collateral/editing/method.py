"""What an editing method is given and what it returns: the boundary between a session and a method."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, Update
from collateral.editing.prepare.second_moments import Moment, read_moment
from collateral.errors import CollateralError, escape_unprintable
from collateral.models.language_model import LanguageModel

Learnt = TypeVar("Learnt")


class UnstableEditError(CollateralError):
    """An operation whose update is not finite or too large; the config says whether that stops the sequence.

    Attributes:
        reason: what was measured, and the remedy: the record of the edit holds it. It is a result, so that it is
            composed before the error is raised: the code fingerprint leaves out what stands in a `raise`.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = escape_unprintable(reason)


def keep_update(_: str, update: Update) -> Update:
    """Return an update as it is."""
    return update


@dataclass(frozen=True)
class Prepared:
    """What was computed once from the unedited model, and the seed of this edit.

    Attributes:
        templates: context templates; the first is the bare `"{}"`.
        moments: of each layer that has a second moment, the file that it is in.
        step_norms: ||ΔW||_F of another editor's step, by fact_id (for placebo).
        seed: seed of this edit, a function of study seed and position alone.
        hypernetwork: trained weights of an editor that learns to edit (MEND).
        adjust: regularises one layer's update inside a loop over layers, so that the later layers see it; the
            identity unless the editor's regularizer says `within_layers`.
    """

    templates: Sequence[str]
    moments: Mapping[int, Path] = field(default_factory=dict)
    step_norms: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    hypernetwork: Path | None = None
    adjust: Callable[[str, Update], Update] = keep_update
    _loaded: dict[int, Moment] = field(default_factory=dict, repr=False, compare=False)
    _learnt: dict[Path, Any] = field(default_factory=dict, repr=False, compare=False)

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
            self._loaded[layer] = read_moment(self.moments[layer], layer)
        return self._loaded[layer]

    def learnt(self, load: Callable[[Path], Learnt]) -> Learnt:
        """Return the hypernetwork, loaded once.

        Raises:
            CollateralError: it was not prepared.
        """
        if self.hypernetwork is None:
            raise CollateralError("no hypernetwork was prepared; run the prepare stage for it")
        if self.hypernetwork not in self._learnt:
            self._learnt[self.hypernetwork] = load(self.hypernetwork)
        found: Learnt = self._learnt[self.hypernetwork]
        return found


@dataclass(frozen=True)
class Edit:
    """What one editing operation computed.

    Attributes:
        delta: the update, not yet applied and not yet regularised.
        state: what the method carries to the next operation.
        record: numbers worth keeping (loss, steps, norms), of the whole operation.
        per_fact: the same for each fact alone; empty where the operation says it all.
    """

    delta: Delta
    state: Mapping[str, Tensor]
    record: dict[str, float]
    per_fact: tuple[dict[str, float], ...] = ()


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


@runtime_checkable
class AdapterMethod(EditingMethod, Protocol):
    """A method that changes no weight: what it learnt is its state, put on the model while it is used."""

    def attach(self, model: LanguageModel, state: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Return a context within which the model answers as edited."""


def attach(
    method: EditingMethod, model: LanguageModel, state: Mapping[str, Tensor]
) -> AbstractContextManager[None]:
    """Return the context in which a method's model answers as edited: nothing to do unless it is an adapter."""
    return method.attach(model, state) if isinstance(method, AdapterMethod) else nullcontext()


def replaces(method: EditingMethod) -> bool:
    """Return whether each update holds the whole history, against W_0 (class attribute `replaces`)."""
    return bool(getattr(method, "replaces", False))
