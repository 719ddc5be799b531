"""Insert one key-value pair into one matrix: the closed form that ROME and R-ROME share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, Factors
from collateral.editing.algorithms.value_optimization import (
    OptimizationSettings,
    Target,
    optimize_target,
    read_objective,
    target_record,
)
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.models.language_model import LanguageModel


@runtime_checkable
class RankOneMethod(OptimizationSettings, Protocol):
    """The settings that methods with one pair in one layer share."""

    @property
    def layer(self) -> int:
        """Decoder layer."""

    @property
    def mom2_adjustment(self) -> bool:
        """Whether C is the second moment of the keys; otherwise the identity."""

    @property
    def mom2_ridge(self) -> float:
        """Share of C's mean diagonal that is added to the diagonal."""


@dataclass(frozen=True)
class Pair:
    """What is inserted.

    Attributes:
        along: key that gives the direction, u = C⁻¹ along / ||C⁻¹ along||.
        key: k, which the update maps to `shift`.
        shift: v* - W k.
        remedy: of an update that is not finite.
    """

    along: Float[Tensor, " d_in"]
    key: Float[Tensor, " d_in"]
    shift: Float[Tensor, " d_out"]
    remedy: str


def insert(
    method: RankOneMethod,
    model: LanguageModel,
    fact: Fact,
    prepared: Prepared,
    state: Mapping[str, Tensor],
    pair_of: Callable[[Target], Pair],
) -> Edit:
    """Return ΔW = shift uᵀ / (kᵀ u) in the method's layer, for the pair that is made of the fact's target.

    Raises:
        UnstableEditError: the update is not finite.
    """
    name = model.down_name(method.layer)
    target = optimize_target(model, fact, prepared.templates, method.layer, read_objective(method))
    pair = pair_of(target)
    direction = pair.along
    if method.mom2_adjustment:
        direction = prepared.moment(method.layer).solve(direction, method.mom2_ridge)
    u = direction / direction.norm()
    overlap = torch.dot(pair.key, u)
    v = pair.shift / overlap
    if not torch.isfinite(v).all():
        reason = f"fact '{fact.fact_id}': the update is not finite (k·u = {float(overlap)}); {pair.remedy}"
        raise UnstableEditError(reason)
    delta = Delta({name: Factors(v[:, None], u[:, None])})
    return Edit(delta, dict(state), {**target_record(target), "key_overlap": float(overlap)})
