"""Edits that each start from the unedited model: no chain, so that one job makes many."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from collateral.deltas.update import Factors, restore, snapshot
from collateral.editing.session import EditedLink, NumberedFact, run_link, write_records
from collateral.evaluation.efficacy import measure_facts, write_rows
from collateral.evaluation.weights.statistics import compute_single_statistics
from collateral.io.parquet import write_table
from collateral.models.language_model import load_model
from collateral.pipeline.edit_chain import LinkInputs, prepare_editor, read_prepared

SCHEMA = {
    "position": pl.Int32,
    "fact_id": pl.String,
    "parameter": pl.String,
    "statistic": pl.String,
    "threshold": pl.Float64,
    "value": pl.Float64,
}


def edit_singly(
    files: LinkInputs,
    *,
    recipe: Mapping[str, Any],
    start: int,
    edits: int,
    seed: int,
    new_tokens: int,
    weigh: Mapping[str, Any],
    dtype: str,
    device: str,
    records: Path,
    after_edit: Path,
    weights: Path,
) -> None:
    """Edit the facts `start + 1` to `edits`, each operation from W_0, and measure each edit while it stands.

    These are the single edits of the RECT paper: the quantiles of delta over 100 of them (section 4.4), and the
    edit performance by regularizer (Figure 7). An edit draws the same random numbers as in a chain.

    Args:
        files: what is read; no deltas and no state.
        recipe: method, settings, regularizer, batch_size, unstable.
        start: number of edits of the part before.
        edits: number of the last edit.
        seed: of the study.
        new_tokens: length of the free generation.
        weigh: `thresholds` and `quantiles` of the weight statistics.
        dtype: of the weights.
        device: where the edits run.
        records: written: one row per edit.
        after_edit: written: the probes of each fact right after its own edit.
        weights: written: the weight statistics of each edit, under the first fact of its operation.

    Raises:
        CollateralError: any input is damaged or does not belong to the others.
    """
    editor, chosen, reference = prepare_editor(files, recipe, start, edits)
    model = load_model(files.model, dtype, device)
    original = snapshot(model, editor.method.parameters(model)) if editor.needs_original else {}
    prepared = read_prepared(files)
    probes: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    moved: list[tuple[Any, ...]] = []

    def observe(group: Sequence[NumberedFact]) -> None:
        probes.extend(measure_facts(model, group, "after_edit", new_tokens, reference))

    size = editor.batch_size
    groups = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    for group in tqdm(groups, desc="single edits", unit="operation", disable=None):
        link = run_link(model, editor, group, prepared, {}, original=original, seed=seed, observe=observe)
        made += link.records
        moved += _measure_change(group, link, weigh)
        restore(model, link.before)
    write_rows(probes, after_edit)
    write_records(made, records)
    write_table(pl.DataFrame(moved, schema=SCHEMA, orient="row"), weights)


def _measure_change(
    group: Sequence[NumberedFact], link: EditedLink, weigh: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    position, fact = group[0]
    rows = []
    for name, before in link.before.items():
        if before.ndim == 2:
            closed = _exact_factors(link, name, before)
            statistics = compute_single_statistics(
                before, link.after[name], closed, weigh["thresholds"], weigh["quantiles"]
            )
            rows += [(position, fact.fact_id, name, *row) for row in statistics]
    return rows


def _exact_factors(link: EditedLink, name: str, before: Tensor) -> Factors | None:
    """Return the update as factors, where they are what was added: not masked, and lost in no rounding."""
    update = link.latest.updates.get(name)
    whole = isinstance(update, Factors) and update.mask is None
    return update if isinstance(update, Factors) and whole and before.dtype == torch.float32 else None
