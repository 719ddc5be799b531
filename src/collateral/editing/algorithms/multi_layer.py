"""Spread an edit over several layers: keys and residuals layer by layer, each with the earlier ones in place.

MEMIT, PMET, EMMET, AlphaEdit and D4S share this loop and differ in the site of the residual, in the share of it
that a layer takes, and in the closed form that turns keys and residual into an update.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, Update, dense, restore, snapshot
from collateral.editing.algorithms.value_optimization import (
    OptimizationSettings,
    Site,
    Target,
    optimize_targets,
    read_objective,
    target_record,
)
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import Stem

Keys = Float[Tensor, "d_in facts"]
Values = Float[Tensor, "d_out facts"]


@runtime_checkable
class MassMethod(OptimizationSettings, Protocol):
    """The settings that methods with several layers share."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers, increasing."""

    @property
    def context_samples(self) -> int:
        """Sampled contexts beside the bare prompt."""


@dataclass(frozen=True)
class Layer:
    """What one layer's closed form is given.

    Attributes:
        number: of the layer.
        remaining: number of layers that are still to be edited, this one included.
        keys: K, mean key of each fact (float64).
        residual: R, what is missing at the last layer at this moment (float64).
    """

    number: int
    remaining: int
    keys: Keys
    residual: Values


def chosen_templates(prepared: Prepared, samples: int) -> list[str]:
    """Return the bare prompt and the last `samples` sampled templates, which are the longest; 0 means all."""
    bare, *sampled = prepared.templates
    return [bare, *(sampled[-samples:] if samples else sampled)]


def edit_layers(
    method: MassMethod,
    model: LanguageModel,
    facts: Sequence[Fact],
    prepared: Prepared,
    state: Mapping[str, Tensor],
    closed_form: Callable[[Layer], Update],
    *,
    sites: tuple[Site, ...] = ("block",),
    nll_factor: float = 1.0,
    relaxed: bool = False,
    remeasured: bool = True,
) -> Edit:
    """Return the edit of several layers: targets of all facts at the last layer, then `spread`.

    Args:
        method: the settings.
        model: the model.
        facts: what is edited, all at once.
        prepared: contexts and second moments.
        state: what the edit carries on; `closed_form` may write into it.
        closed_form: keys and residual of a layer to its update.
        sites: where the optimisation shifts; the residual is measured at the last of them.
        nll_factor: see `Objective`.
        relaxed: see `Objective`.
        remeasured: see `spread`.
    """
    objective = replace(read_objective(method), sites=sites, nll_factor=nll_factor, relaxed=relaxed)
    layers = method.layers
    templates = chosen_templates(prepared, method.context_samples)
    targets, stems = optimize_targets(model, facts, templates, layers[-1], objective, layers[0])
    site = model.block(layers[-1]) if sites[-1] == "block" else model.mlp(layers[-1])
    delta = spread(model, facts, layers, targets, stems, site, closed_form, prepared, remeasured=remeasured)
    return Edit(delta, state, {}, tuple(target_record(target) for target in targets))


def spread(
    model: LanguageModel,
    facts: Sequence[Fact],
    layers: Sequence[int],
    targets: Sequence[Target],
    stems: Sequence[Stem],
    site: nn.Module,
    closed_form: Callable[[Layer], Update],
    prepared: Prepared,
    *,
    remeasured: bool = True,
) -> Delta:
    """Return the update of every layer; the model is left as it was.

    For layer l = layers[i], on the model with layers[:i] already updated (MEMIT, arXiv 2210.07229, algorithm 1):
    K_l holds each fact's key, the bare prompt's counting one half and the sampled contexts' together the other;
    R_l = Z - H, with H the site's output now at the subject of the bare prompt; ΔW_l = closed_form(K_l, R_l).

    Args:
        model: the model.
        facts: what is edited.
        layers: decoder layers, increasing.
        targets: z = values[0] + delta of each fact.
        stems: the rows of all facts up to the subject, below the first layer.
        site: the module, in the last layer, that the residual is measured at.
        closed_form: keys and residual to update.
        prepared: for `adjust`.
        remeasured: measure R before each layer; otherwise R is the whole delta at every layer (D4S as released).

    Raises:
        UnstableEditError: keys or residuals are not finite.
    """
    names = [model.down_name(layer) for layer in layers]
    saved = snapshot(model, tuple(names))
    wanted = torch.stack([target.values[0].double() + target.delta.double() for target in targets], dim=1)
    residual = torch.stack([target.delta.double() for target in targets], dim=1)
    moving = list(stems)
    updates: dict[str, Update] = {}
    try:
        for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
            pieces = [stem.keys(model, layer) for stem in moving]
            keys = mean_keys(pieces, len(facts))
            moving = [stem for _, stem in pieces]
            if i > 0 and remeasured:
                residual = wanted - _outputs(model, [stem.bare() for stem in moving], site, len(facts))
            _check(facts, keys, residual, layer)
            update = closed_form(Layer(layer, len(layers) - i, keys, residual.to(keys.device)))
            updates[name] = prepared.adjust(name, update)
            if i < len(layers) - 1:
                matrix = model.matrix(name)
                matrix.copy_((matrix.double() + dense(updates[name]).double()).to(matrix.dtype))
    finally:
        restore(model, saved)
    return Delta(updates)


def mean_keys(pieces: Sequence[tuple[Tensor, Stem]], facts: int) -> Keys:
    """Return each fact's key: one half the bare prompt's, one half the mean of the sampled contexts'.

    Args:
        pieces: keys (rows x d_in) of a chunk's rows, with the stem that says whose they are.
        facts: number of facts.
    """
    first, _ = pieces[0]
    total = torch.zeros(facts, first.shape[1], dtype=torch.float64, device=first.device)
    for keys, stem in pieces:
        templates = max(stem.template) + 1
        shares = [
            1.0 if templates == 1 else 0.5 if one == 0 else 0.5 / (templates - 1) for one in stem.template
        ]
        weight = torch.tensor(shares, dtype=torch.float64, device=first.device)
        owner = torch.tensor(stem.owner, device=first.device)
        total.index_add_(0, owner, keys.double() * weight[:, None])
    return total.T


def _outputs(model: LanguageModel, stems: Sequence[Stem], site: nn.Module, facts: int) -> Values:
    found: list[Tensor | None] = [None] * facts
    for stem in stems:
        for owner, value in zip(stem.owner, stem.outputs(model, site), strict=True):
            found[owner] = value.double()
    return torch.stack([value for value in found if value is not None], dim=1)


def _check(facts: Sequence[Fact], keys: Tensor, residual: Tensor, layer: int) -> None:
    for i, fact in enumerate(facts):
        if not (torch.isfinite(keys[:, i]).all() and torch.isfinite(residual[:, i]).all()):
            reason = (
                f"fact '{fact.fact_id}': its key or residual at layer {layer} is not finite; the model has "
                "collapsed: lower the editor's last checkpoint, or raise mom2_update_weight"
            )
            raise UnstableEditError(reason)
