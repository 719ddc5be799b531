"""One link of an editing chain: rebuild the previous checkpoint, edit on, write the increment."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from collateral.data.edit_order import derive_seed
from collateral.data.facts import Fact
from collateral.deltas.operations import Operation, OperationLog
from collateral.deltas.update import Delta, Factors, Update, norm, restore, snapshot
from collateral.editing.method import (
    Edit,
    EditingMethod,
    Prepared,
    UnstableEditError,
    attach,
    keep_update,
    replaces,
)
from collateral.editing.regularizer import Regularizer, regularize
from collateral.io.parquet import write_table
from collateral.models.language_model import LanguageModel

log = logging.getLogger(__name__)

NumberedFact = tuple[int, Fact]
Observer = Callable[[Sequence[NumberedFact]], None]


@dataclass(frozen=True)
class Editor:
    """A named editor.

    Attributes:
        method: with its settings.
        regularizer: of its updates.
        batch_size: number of facts that one operation edits.
        skip_unstable: leave an unstable operation out instead of stopping.
        limit: largest norm of one operation's update of a matrix, in norms of that matrix.
    """

    method: EditingMethod
    regularizer: Regularizer
    batch_size: int = 1
    skip_unstable: bool = False
    limit: float = 10.0

    @property
    def replaces(self) -> bool:
        """Whether a checkpoint's increment is against W_0 and makes the earlier ones void."""
        return replaces(self.method) or self.regularizer.kind == "accumulated"

    @property
    def needs_original(self) -> bool:
        """Whether W_0 is read."""
        return self.replaces or self.regularizer.needs_original


@dataclass(frozen=True)
class EditedLink:
    """What one link did.

    Attributes:
        before: touched parameters at its start, as stored; W_0 where the increment replaces the earlier ones.
        after: the same at its end.
        state: the method's state.
        records: one row per edited fact.
        latest: the last operation's update, regularised, as it was added: before the sum was rounded; only of the
            matrices whose update is factors.
        operations: of each touched parameter, what was added to it, in order, as factors; None where some update has
            none, or they take more room than the parameter.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    state: Mapping[str, Tensor]
    records: list[dict[str, Any]]
    latest: Delta
    operations: Mapping[str, Sequence[Operation]] | None = None


def run_link(
    model: LanguageModel,
    recipe: Editor,
    facts: Sequence[NumberedFact],
    prepared: Prepared,
    state: Mapping[str, Tensor],
    *,
    original: Mapping[str, Tensor],
    seed: int,
    observe: Observer,
) -> EditedLink:
    """Edit the facts in turn, in place, and return what changed.

    Args:
        model: at the state of the previous checkpoint; left at the new one.
        recipe: the editor.
        facts: (number in the sequence, fact), in order.
        prepared: what was computed from the unedited model.
        state: the method's state at the previous checkpoint.
        original: W_0 as stored, of the parameters that the method may touch; read where `needs_original` says so.
        seed: of the study.
        observe: called after each operation with its facts, while the model stands right after them.

    Raises:
        UnstableEditError: an update is not finite or too large, and the recipe does not say to skip it.
    """
    before: dict[str, Tensor] = dict(original) if recipe.replaces else {}
    method_state: Mapping[str, Tensor] = state
    records: list[dict[str, Any]] = []
    latest = Delta()
    ledger = OperationLog(open_=not recipe.replaces)
    size = recipe.batch_size
    groups = [facts[i : i + size] for i in range(0, len(facts), size)]
    quiet = True if len(groups) == 1 else None  # None: shown where there is a terminal
    for group in tqdm(groups, desc="edit", unit="operation", disable=quiet):
        weights = snapshot(model, tuple(original)) if replaces(recipe.method) else {}
        try:
            delta, edit = _compute_operation(model, recipe, group, prepared, method_state, original, seed)
        except UnstableEditError as error:
            if not recipe.skip_unstable:
                raise
            restore(model, weights)
            log.warning("skipped: %s", error)
            records += [
                {"position": n, "fact": fact, "status": "skipped", "reason": error.reason}
                for n, fact in group
            ]
            with attach(recipe.method, model, method_state):
                observe(group)
            continue
        before |= snapshot(model, tuple(name for name in delta.updates if name not in before))
        for name in delta.updates:
            ledger.add(name, delta.updates[name], before[name], model.architecture.transposed)
        delta.apply(model)
        latest, method_state = _select_factors(delta), edit.state
        records += _record_operation(group, delta, edit)
        del delta, edit  # a dense update takes as much as the matrices in float64
        with attach(recipe.method, model, method_state):
            observe(group)
    after = snapshot(model, tuple(before))
    if recipe.regularizer.kind == "accumulated":
        raw = {f"{RAW}{name}": stored for name, stored in after.items()}
        method_state = {**method_state, **raw}
        after = _regularize_accumulated(model, recipe.regularizer, original, after)
    return EditedLink(before, after, method_state, records, latest, ledger.operations)


def _select_factors(delta: Delta) -> Delta:
    """Return the updates that are factors."""
    return Delta({name: update for name, update in delta.updates.items() if isinstance(update, Factors)})


def _record_operation(group: Sequence[NumberedFact], delta: Delta, edit: Edit) -> list[dict[str, Any]]:
    """Return a record of each fact of an operation that was applied."""
    norms = {"update_norm": delta.norm(), "raw_norm": edit.delta.norm()}
    rows = []
    for (position, fact), numbers in zip(group, edit.per_fact or ({},) * len(group), strict=True):
        log.info(
            "edit %d: %s -> %s, norm of the update %.4g",
            position,
            fact.text(),
            fact.target_new,
            norms["update_norm"],
        )
        rows.append(
            {"position": position, "fact": fact, "status": "applied", **norms, **edit.record, **numbers}
        )
    return rows


RAW = "raw/"  # prefix, in a state, of the weights that a checkpoint's accumulated update was restrained from


def _compute_operation(
    model: LanguageModel,
    recipe: Editor,
    group: Sequence[NumberedFact],
    prepared: Prepared,
    state: Mapping[str, Tensor],
    original: Mapping[str, Tensor],
    seed: int,
) -> tuple[Delta, Edit]:
    """Return the regularised update of one operation, not applied, and what the method returned."""
    number, first = group[0]
    regularizer = recipe.regularizer
    if replaces(recipe.method):
        restore(model, original)

    def adjust(name: str, update: Update) -> Update:
        matrix = model.matrix(name)
        if matrix.ndim < 2:
            return update  # a bias: regularisers are of matrices
        w_0 = model.oriented(original[name]) if name in original else None
        return regularize(regularizer, matrix, w_0, update, derive_seed("regularizer", seed, number, name))

    inputs = replace(
        prepared,
        seed=derive_seed("edit", seed, number),
        adjust=adjust if regularizer.within_layers else keep_update,
    )
    known = {name: tensor for name, tensor in state.items() if not name.startswith(RAW)}
    edit = recipe.method(model, [fact for _, fact in group], inputs, known)
    delta = edit.delta
    if not regularizer.within_layers:
        delta = Delta({name: adjust(name, update) for name, update in delta.updates.items()})
    for name, update in delta.updates.items():
        size, whole = norm(update), norm(model.matrix(name))
        if not math.isfinite(size) or size > recipe.limit * whole > 0:
            reason = (
                f"edit {number} (fact '{first.fact_id}'): the norm of the update of {name} is {size:.4g}, that of "
                f"the matrix {whole:.4g}, the allowed ratio {recipe.limit:g}; the model has collapsed, or this edit "
                "ruins it: lower the editor's last checkpoint, or set unstable.action: skip"
            )
            raise UnstableEditError(reason)
    return delta, edit


def _regularize_accumulated(
    model: LanguageModel,
    regularizer: Regularizer,
    original: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return W_0 + regularised (W_n - W_0) as stored, and put it on the model."""
    for name, stored in weights.items():
        if stored.ndim < 2 or torch.equal(stored, original[name]):
            continue
        w_0, w_n = model.oriented(original[name]).double(), model.oriented(stored).double()
        total = w_0 + regularizer(w_n, w_0, w_n - w_0, 0)
        model.matrix(name).copy_(total.to(stored.dtype))
    return snapshot(model, tuple(weights))


RECORD_SCHEMA = {
    "position": pl.Int32,
    "fact_id": pl.String,
    "subject": pl.String,
    "relation": pl.String,
    "prompt": pl.String,
    "target_new": pl.String,
    "target_true": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "update_norm": pl.Float64,
    "raw_norm": pl.Float64,
    "loss": pl.Float64,
    "steps": pl.Int32,
    "delta_norm": pl.Float64,
    "key_overlap": pl.Float64,
    "neurons": pl.Int32,
}


def write_records(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row per edit: the fact as text, whether it was applied, norms before and after regularisation."""
    rows = []
    for record in records:
        fact: Fact = record["fact"]
        texts = {"prompt": fact.text()} | {
            name: getattr(fact, name)
            for name in ("fact_id", "subject", "relation", "target_new", "target_true")
        }
        rows.append({name: {**record, **texts}.get(name) for name in RECORD_SCHEMA})
    write_table(pl.DataFrame(rows, schema=RECORD_SCHEMA), path)
