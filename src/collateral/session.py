"""One link of an editing chain: rebuild the previous checkpoint, edit on, write the increment."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from collateral.delta import Delta, snapshot
from collateral.deltafile import read_chain, rebuild
from collateral.editing import EditingMethod, Prepared
from collateral.errors import CollateralError
from collateral.facts import Fact
from collateral.files import whole_file
from collateral.models import LanguageModel
from collateral.regularizers import Regularizer
from collateral.sequences import derive_seed
from collateral.tensorfile import read_tensors, write_tensors

log = logging.getLogger(__name__)

Numbered = tuple[int, Fact]
Observer = Callable[[Sequence[Numbered]], None]


@dataclass(frozen=True)
class Recipe:
    """A named editor: a method, a regulariser, and how many facts one operation edits."""

    method: EditingMethod
    regularizer: Regularizer
    batch_size: int = 1


@dataclass(frozen=True)
class Link:
    """What one link did.

    Attributes:
        before: touched parameters at its start, as stored.
        after: the same at its end.
        state: the method's state.
        records: one row per edited fact.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    state: dict[str, Tensor]
    records: list[dict[str, Any]]


def apply_chain(model: LanguageModel, paths: Sequence[Path]) -> None:
    """Turn the unedited model into the checkpoint at the end of a chain of delta files, bit for bit.

    Raises:
        CollateralError: a file is damaged, missing, or belongs to another model.
    """
    increments = read_chain(paths, model.base_sha256)
    names = {name for one in increments for name in one.metadata["parameters"]}
    live = rebuild(snapshot(model, tuple(sorted(names))), increments)
    for name, values in live.items():
        model.network.get_parameter(name).data.copy_(values)


def run_link(
    model: LanguageModel,
    recipe: Recipe,
    facts: Sequence[Numbered],
    prepared: Prepared,
    state: Mapping[str, Tensor],
    *,
    original: Mapping[str, Tensor],
    seed: int,
    observe: Observer,
) -> Link:
    """Edit the facts in turn, in place, and return what changed.

    Args:
        model: at the state of the previous checkpoint; left at the new one.
        recipe: the editor.
        facts: (number in the sequence, fact), in order.
        prepared: what was computed from the unedited model.
        state: the method's state at the previous checkpoint.
        original: W_0 of the parameters that the method touches, `d_out x d_in`.
        seed: of the study.
        observe: called after each operation with its facts, while the model stands right after them.

    Raises:
        CollateralError: an update is not finite; the message names the fact and the norm.
    """
    names = recipe.method.parameters(model)
    before = snapshot(model, names)
    carried = dict(state)
    records: list[dict[str, Any]] = []
    size = recipe.batch_size
    groups = [facts[i : i + size] for i in range(0, len(facts), size)]
    for group in tqdm(groups, desc="edit", unit="operation", disable=None):
        number = group[0][0]
        own = replace(prepared, seed=derive_seed("edit", seed, number))
        edit = recipe.method(model, [fact for _, fact in group], own, carried)
        delta = _regularized(model, edit.delta, recipe.regularizer, original, seed, number)
        norm, raw_norm = delta.norm(), edit.delta.norm()
        if not torch.isfinite(torch.tensor(norm)):
            raise CollateralError(
                f"edit {number} (fact '{group[0][1].fact_id}'): the norm of the update is {norm}; the model has "
                "collapsed before this edit: lower the last checkpoint of this editor"
            )
        delta.apply(model)
        carried = edit.state
        observe(group)
        for position, fact in group:
            log.info(
                "edit %d: %s -> %s, norm of the update %.4g", position, fact.text(), fact.target_new, norm
            )
            records.append(
                {"position": position, "fact": fact, "update_norm": norm, "raw_norm": raw_norm, **edit.record}
            )
    return Link(before, snapshot(model, names), carried, records)


def _regularized(
    model: LanguageModel,
    delta: Delta,
    regularizer: Regularizer,
    original: Mapping[str, Tensor],
    seed: int,
    number: int,
) -> Delta:
    if regularizer.name == "none":
        return delta
    return Delta(
        {
            name: regularizer(
                model.matrix(name),
                original.get(name),
                delta.dense(name),
                derive_seed("regularizer", seed, number, name),
            )
            for name in delta.updates
        }
    )


RECORD_SCHEMA = {
    "position": pl.Int32,
    "fact_id": pl.String,
    "subject": pl.String,
    "relation": pl.String,
    "prompt": pl.String,
    "target_new": pl.String,
    "target_true": pl.String,
    "update_norm": pl.Float64,
    "raw_norm": pl.Float64,
    "loss": pl.Float64,
    "steps": pl.Int32,
    "delta_norm": pl.Float64,
    "key_overlap": pl.Float64,
}


def write_records(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row per edit: the fact as text, norms of the update before and after regularisation, loss."""
    rows = []
    for record in records:
        fact: Fact = record["fact"]
        texts = {"prompt": fact.text()} | {
            name: getattr(fact, name)
            for name in ("fact_id", "subject", "relation", "target_new", "target_true")
        }
        rows.append({name: {**record, **texts}.get(name) for name in RECORD_SCHEMA})
    with whole_file(path) as partial:
        pl.DataFrame(rows, schema=RECORD_SCHEMA).write_parquet(partial, compression="zstd")


def write_state(state: Mapping[str, Tensor], path: Path, edits: int, settings_sha256: str) -> None:
    """Write a method's state, possibly empty, with the number of edits and the editor's settings."""
    about = {"format": "collateral-state/1", "edits": edits, "settings_sha256": settings_sha256}
    write_tensors(state, path, about)


def read_state(path: Path, edits: int, settings_sha256: str) -> dict[str, Tensor]:
    """Return the state after `edits` edits of the editor with these settings.

    Raises:
        CollateralError: not readable, or the state of another point or editor.
    """
    state, about = read_tensors(path, "an editor's state")
    if about.get("edits") != edits or about.get("settings_sha256") != settings_sha256:
        raise CollateralError(
            f"{path}: the state of another editor or number of edits; delete {path.parent.parent} and run again"
        )
    return state
