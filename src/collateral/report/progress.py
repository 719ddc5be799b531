"""What a study that is not finished already has, and what it lacks. Torch-free."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.tables import collect as tables
from collateral.analysis.tables.schema import TABLES
from collateral.errors import CollateralError
from collateral.io.parquet import read_table
from collateral.study.jobs import Job, list_outputs
from collateral.study.paths import name_layers

LAST = ("gather", "infer", "report")  # what is made of all results
_SHOWN = 6  # places of a rule that are named; the others are counted
_TABLES = {
    "samples": "ability-items",
    "efficacy": "efficacy",
    "after_edit": "efficacy",
    "reference": "efficacy",
    "edits": "edits",
    "weights": "weights",
    "drift": "drift",
    "heatmaps": "heatmaps",
    "singles": "single-weights",
}
_COLUMNS = {"known": {"fact_id", "known"}, "facts": {"fact_id", "question_type", "case_id"}}
CHECKED = ("abilities", *_TABLES, *_COLUMNS)
"""Kinds of results whose files can be told to be whole and of this version."""


@dataclass(frozen=True)
class UsableResults:
    """The results of a study that can be used.

    Attributes:
        paths: kind of result → files that are there, whole and of this version.
        broken: file → why it is left out, though it is there.
    """

    paths: dict[str, list[Path]]
    broken: dict[str, str]


def find_usable_results(expected: Mapping[str, Sequence[str]]) -> UsableResults:
    """Return which of a study's results can be used; `expected` is kind → files (`outputs.list_results`).

    An evaluation counts only with both its files. Where a task was scored in several versions, the one that was
    written last counts: the others are of before a change and will be made again.
    """
    broken: dict[str, str] = {}
    found: dict[str, list[Path]] = {}
    for kind, names in expected.items():
        there = [name for name in names if Path(name).is_file()]
        broken.update({name: fault for name in there if (fault := _find_fault(kind, Path(name)))})
        found[kind] = [Path(name) for name in there if name not in broken]
    broken |= _find_outdated(found["samples"])
    for name in broken:
        for kind in found:
            found[kind] = [path for path in found[kind] if path.as_posix() != name]
    both = {_evaluation(path) for path in found["abilities"]} & {
        _evaluation(path) for path in found["samples"]
    }
    for kind in ("abilities", "samples"):
        found[kind] = [path for path in found[kind] if _evaluation(path) in both]
    return UsableResults(found, broken)


def _evaluation(path: Path) -> str:
    return path.as_posix().removesuffix(".json").removesuffix(".items.parquet")


def _find_fault(kind: str, path: Path) -> str:
    """Return why a result cannot be used; empty where it can."""
    try:
        if kind == "abilities":
            tables.collect_skipped([path])
            tables.read_result_rows(path, {})
            return ""
        columns = set(read_table(path, "a result").columns)
    except CollateralError as error:
        return str(error).removeprefix(f"{path}: ").partition(";")[0]
    except (KeyError, TypeError, AttributeError):
        return "not an lm-eval result"
    wanted = _COLUMNS.get(kind) or set(TABLES[_TABLES[kind]].columns) - {*tables.KEY, "suite"}
    lacking = sorted(wanted - columns)
    return f"of another version (no column '{lacking[0]}')" if lacking else ""


def _find_outdated(samples: Iterable[Path]) -> dict[str, str]:
    """Return the items that were scored on another version of a task than the ones written last."""
    newest: dict[tuple[str, str], str] = {}
    faults: dict[str, str] = {}
    for path in sorted(samples, key=lambda one: one.stat().st_mtime, reverse=True):
        for task, version in read_table(path, "scored items").select("task", "task_hash").unique().rows():
            if newest.setdefault((path.name, task), version) != version:
                faults[path.as_posix()] = f"scored on another version of the task '{task}'"
    return faults


def find_missing_jobs(jobs: Iterable[Job], broken: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rules that are not done: `rule`, jobs `done`, `of` how many, and `where` the others are, in words.

    Args:
        jobs: of the study.
        broken: file → why it cannot be used, which the words repeat.
    """
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    found = []
    for rule, own in by_rule.items():
        left = [job for job in own if not _is_done(job, broken)]
        if left:
            found.append(
                {"rule": rule, "done": len(own) - len(left), "of": len(own), "where": _where(left, broken)}
            )
    return found


def _is_done(job: Job, broken: Collection[str]) -> bool:
    files = list_outputs(job)
    return all(Path(name).is_file() and Path(name).stat().st_size for name in files) and not any(
        name in broken for name in files
    )


def _where(left: Sequence[Job], broken: Mapping[str, str]) -> str:
    """Return for what the jobs are that are left, and which of their files are there but cannot be used."""
    groups: dict[str, list[str]] = {}
    for job in left:
        of = (job.model, job.dataset, f"seed {job.seed}" if job.dataset and job.edits else "", job.editor)
        own = groups.setdefault(" · ".join(name for name in of if name) or job.output, [])
        what = f"{job.edits} edits" if job.edits else job.suite
        what = f"layers {name_layers(job.layers)}" if job.layers else what
        own += [what] if what and what not in own else []
    named = [f"{name}: {', '.join(own)}" if own else name for name, own in groups.items()]
    parts = _shortened(named)
    for job in left:
        parts += [f"{name}: {broken[name]}" for name in list_outputs(job) if name in broken]
    return "; ".join(parts)


def _shortened(named: Sequence[str]) -> list[str]:
    more = len(named) - _SHOWN
    return [*named[:_SHOWN], f"and {more} more"] if more > 0 else list(named)


def try_tables(make: Callable[[], dict[str, pl.DataFrame]]) -> tuple[dict[str, pl.DataFrame], str]:
    """Return tables, or none and why they cannot be made of what there is."""
    try:
        return make(), ""
    except CollateralError as error:
        return {}, str(error)
