"""Item rows of edited models beside those of the unedited one: paired, or refused. Torch-free."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.analysis.statistics.resampling import Paired
from collateral.analysis.tables.collect import KEY, UNEDITED, is_perplexity
from collateral.errors import CollateralError

Numbers = npt.NDArray[np.float64]

METRIC = ("model", "suite", "task", "metric")
CELL = ("model", "dataset", "editor", "edits")
RATIO, PERPLEXITY, BITS, JOINT = "ratio", "perplexity", "bits", "joint"
_CLOSE = 1e-6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairedMetric:
    """One primary metric of one model, and what its items are.

    Attributes:
        about: model, suite, ability, task, metric, higher_is_better, chance, and the unedited `value` and `stderr`.
        kind: how items make the value: `ratio` of two sums (a mean is one), `perplexity` exp(-ratio), `bits`
            -ratio / ln 2, or `joint`: not from sums over items.
        checkpoints: the edited models: the key and `value`, one row each.
        before: (n,) scores of the unedited model's items; none for a joint metric.
        before_weight: their weights.
        after: (checkpoints, n) scores.
        after_weight: their weights.
    """

    about: Mapping[str, Any]
    kind: str
    checkpoints: pl.DataFrame
    before: Numbers
    before_weight: Numbers
    after: Numbers
    after_weight: Numbers

    @property
    def logarithmic(self) -> bool:
        """Whether effects are log ratios: of a perplexity, or of the one that bits stand for."""
        return self.kind in {PERPLEXITY, BITS} or (self.kind == JOINT and is_perplexity(self.about["metric"]))

    @property
    def harmful(self) -> float:
        """The sign of a harmful effect."""
        return -1.0 if self.about["higher_is_better"] and not self.logarithmic else 1.0

    def pair(self, rows: list[int]) -> Paired:
        """Return the items of some checkpoints, which are seeds of one cell, beside the unedited model's."""
        sign = -1.0 if self.logarithmic else 1.0
        return Paired(self.before, self.before_weight, self.after[rows], self.after_weight[rows], sign)


def pair_items(abilities: pl.DataFrame, items: pl.DataFrame) -> list[PairedMetric]:
    """Return every primary metric with its items in pairs; a metric without an unedited value is left to a later run.

    Rows pair by task_hash and doc_hash, and by doc_id and target_hash too where a task asks a document twice.

    Raises:
        CollateralError: an item has no partner, or has several; with the checkpoint, the task, and the remedy.
    """
    if abilities.is_empty():
        return []
    scored = abilities.filter(pl.col("primary"))
    own = _group_items(scored, items)
    found = []
    for name, rows in scored.group_by(METRIC, maintain_order=True):
        reference = rows.filter(pl.col("editor") == UNEDITED)
        if reference.is_empty():
            log.warning(
                "the unedited %s has no %s of %s yet: nothing to compare with", name[0], name[3], name[2]
            )
            continue
        found.append(_pair_metric(reference.row(0, named=True), rows, own.get(name)))
    return found


def _group_items(scored: pl.DataFrame, items: pl.DataFrame) -> dict[tuple[Any, ...], pl.DataFrame]:
    """Return metric → its item rows; a group's are those of the tasks whose names begin with its own."""
    if items.is_empty():
        return {}
    found = dict(items.group_by(METRIC, maintain_order=True))
    for name in scored.select(METRIC).unique(maintain_order=True).rows():
        if name not in found:
            model, suite, group, metric = name
            parts = [
                rows
                for (own, its, task, measure), rows in found.items()
                if (own, its, measure) == (model, suite, metric) and str(task).startswith(f"{group}_")
            ]
            if parts:
                found[name] = pl.concat(parts)
    return found


def _pair_metric(about: Mapping[str, Any], rows: pl.DataFrame, items: pl.DataFrame | None) -> PairedMetric:
    checkpoints = rows.filter(pl.col("editor") != UNEDITED).select(*KEY, "value").sort(*KEY)
    nothing = np.zeros(0)
    if items is None:
        return PairedMetric(about, JOINT, checkpoints, nothing, nothing, nothing, nothing)
    before, after = _match_items(about, checkpoints, items)
    n = len(before)
    shape = (len(checkpoints), n)
    arrays = [
        before["score"].to_numpy(),
        before["weight"].to_numpy(),
        after["score"].to_numpy().reshape(shape),
        after["weight"].to_numpy().reshape(shape),
    ]
    kind = _find_kind(about, checkpoints["value"].to_numpy(), *arrays)
    if kind == JOINT:
        log.warning(
            "%s of %s is not a ratio of sums over its items: no interval and no test",
            about["metric"],
            about["task"],
        )
    return PairedMetric(about, kind, checkpoints, *arrays)


def _find_kind(
    about: Mapping[str, Any],
    values: Numbers,
    before: Numbers,
    before_weight: Numbers,
    after: Numbers,
    after_weight: Numbers,
) -> str:
    """Return how the items make the stored values, of all checkpoints that are finite."""
    stored = np.concatenate([[about["value"]], values])
    with np.errstate(all="ignore"):
        unedited = before.sum() / before_weight.sum()
        ratio = np.concatenate([[unedited], after.sum(axis=1) / after_weight.sum(axis=1)])
        made = {RATIO: ratio, PERPLEXITY: np.exp(-ratio), BITS: -ratio / np.log(2)}
    known = np.isfinite(stored) & np.isfinite(ratio)
    for kind, value in made.items():
        if known.any() and np.allclose(stored[known], value[known], rtol=_CLOSE, atol=_CLOSE**2):
            return kind
    return JOINT


def _match_items(
    about: Mapping[str, Any], checkpoints: pl.DataFrame, items: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the unedited model's items, and those of all checkpoints, in their order and the items' order."""
    before = items.filter(pl.col("editor") == UNEDITED)
    by = ["task_hash", "doc_hash"]
    if before.select(by).is_duplicated().any():
        by += ["doc_id", "target_hash"]
    if before.is_empty():
        raise _unpaired_error(about, None, "the unedited model has no items")
    if before.select(by).is_duplicated().any():
        raise _unpaired_error(about, None, "the unedited model has an item twice")
    numbered = before.select(*by, item=pl.int_range(pl.len()))
    edited = items.filter(pl.col("editor") != UNEDITED).join(numbered, on=by, how="left")
    versions = before["task_hash"].unique()
    counted = edited.group_by(KEY.keys(), maintain_order=True).agg(
        n=pl.len(),
        distinct=pl.col("item").drop_nulls().n_unique(),
        unknown=pl.col("item").null_count(),
        other=(~pl.col("task_hash").is_in(versions.implode())).any(),
    )
    told = checkpoints.select(KEY.keys()).join(counted, on=list(KEY), how="full", coalesce=True)
    for row in told.iter_rows(named=True):
        fault = _find_fault(row, len(before))
        if fault:
            raise _unpaired_error(about, row, fault)
    return before, edited.sort(*KEY, "item")


def _find_fault(row: Mapping[str, Any], n: int) -> str | None:
    """Return what is wrong with the items of one checkpoint."""
    if row["n"] is None:
        return f"none of the unedited model's {n} items"
    if row["other"]:
        return "items of another version of the task (task_hash) than the unedited model's"
    if row["unknown"]:
        return f"{row['unknown']} items that the unedited model was not asked"
    if row["n"] > row["distinct"]:
        return f"{row['n'] - row['distinct']} items twice"
    if row["distinct"] < n:
        return f"only {row['distinct']} of the unedited model's {n} items"
    return None


def _unpaired_error(about: Mapping[str, Any], row: Mapping[str, Any] | None, fault: str) -> CollateralError:
    model, suite, task = about["model"], about["suite"], about["task"]
    if row is None:
        who, where = f"model '{model}', editor '{UNEDITED}', 0 edits", f"results/unedited/{model}"
    else:
        who = f"model '{model}', data set '{row['dataset']}', editor '{row['editor']}', {row['edits']} edits"
        where = f"results/edited/{model}/{row['dataset']}/seed-{row['seed']}/{row['editor']}/edits-{row['edits']:04d}"
    return CollateralError(
        f"{who}, suite '{suite}', task '{task}': {fault}; its items cannot be paired: delete "
        f"{where}/abilities/{suite}.* and run again"
    )


def iterate_cells(one: PairedMetric) -> Iterator[tuple[Mapping[str, Any], list[int]]]:
    """Yield each (model, data set, editor, edits) of a metric, and the numbers of its checkpoints, one a seed."""
    numbered = one.checkpoints.with_row_index("row")
    for _, rows in numbered.group_by(CELL, maintain_order=True):
        yield rows.select(CELL).row(0, named=True), rows["row"].to_list()
