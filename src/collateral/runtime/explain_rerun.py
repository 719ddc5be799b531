"""Why the workflow would rebuild a file: from its planned jobs and the ledger of fingerprints. Torch-free."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collateral.io.atomic import write_text
from collateral.runtime.planned_jobs import PlannedJob

LEDGER = Path(".snakemake/collateral.code.json")
_SHOWN = 3  # files and definitions of one reason that are named

Ledger = Mapping[str, Mapping[str, str]]
"""Fingerprint of code → name of a definition → its hash."""


def explain_jobs(jobs: Sequence[PlannedJob], ledger: Ledger) -> str:
    """Return the planned jobs with their reasons, those that nothing else causes first.

    Args:
        jobs: of a dry run.
        ledger: which definitions are behind a fingerprint.
    """
    lines = []
    for title, follows in (("What begins it:", False), ("What follows from it:", True)):
        chosen = [job for job in jobs if bool(job.rebuilt) == follows]
        if chosen:
            lines.append(title)
            lines += [f"  {job.message}\n    {'; '.join(_find_reasons(job, ledger))}" for job in chosen]
    return "\n".join(lines)


def _find_reasons(job: PlannedJob, ledger: Ledger) -> list[str]:
    reasons = list(_compare_parameters(job, ledger))
    if job.missing:
        reasons.append(f"missing: {_shorten(job.missing)}")
    if job.incomplete:
        reasons.append(f"left incomplete by an interrupted job: {_shorten(job.incomplete)}")
    if job.changed:
        reasons.append(f"the content of an input changed: {_shorten(job.changed)}")
    if job.rebuilt:
        reasons.append(f"an input is rebuilt: {_shorten(job.rebuilt)}")
    if job.other_inputs:
        reasons.append("its inputs are other files than before")
    if job.other_environment:
        reasons.append("the definition of its environment changed")
    if job.forced:
        reasons.append("the command line asks for it")
    return reasons or ["it is a target without files"]


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _compare_parameters(job: PlannedJob, ledger: Ledger) -> Iterator[str]:
    """Yield which definitions of code, and which settings, differ from those that made the job's files."""
    code: list[list[str]] = []
    settings: list[list[Any]] = []
    for texts in (job.old, job.new):
        values = [_evaluate(text) for text in texts]
        code.append([value for value in values if _find_fingerprint(value, ledger)])
        settings.append([value for value in values if not _find_fingerprint(value, ledger)])
    for old, new in zip(*code, strict=False):
        yield _compare_code(old, new, ledger)
    changes = [text for old, new in _pair(*settings) for text in _find_differences(old, new, "")]
    if changes:
        yield f"settings changed: {', '.join(changes)}"


def _evaluate(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _find_fingerprint(value: Any, ledger: Ledger) -> str:
    """Return the fingerprint that a parameter begins with; empty where it has none."""
    first = value.partition(" ")[0] if isinstance(value, str) else ""
    return first if first in ledger or _looks_like_fingerprint(first) else ""


def _looks_like_fingerprint(text: str) -> bool:
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def _compare_code(old: str, new: str, ledger: Ledger) -> str:
    (before, _, old_texts), (after, _, new_texts) = old.partition(" "), new.partition(" ")
    if before == after:
        return f"the tasks' texts or the libraries changed: {old_texts} → {new_texts}"
    if before not in ledger or after not in ledger:
        return "its code changed"
    names = ledger[before].keys() | ledger[after].keys()
    changed = sorted(name for name in names if ledger[before].get(name) != ledger[after].get(name))
    return f"its code changed: {_shorten(changed)}"


def _pair(old: list[Any], new: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield values before and after, those with the most keys in common first; None for no partner."""
    old, new = list(old), list(new)
    while old and new:
        left, right = max(((left, right) for left in old for right in new), key=lambda pair: _overlap(*pair))
        old.remove(left)
        new.remove(right)
        yield left, right
    yield from ((value, None) for value in old)
    yield from ((None, value) for value in new)


def _overlap(old: Any, new: Any) -> int:
    if isinstance(old, dict) and isinstance(new, dict):
        return len(old.keys() & new.keys())
    return 0 if type(old) is type(new) else -1


def _find_differences(old: Any, new: Any, name: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key) or (key in old) != (key in new):
                yield from _find_differences(
                    old.get(key), new.get(key), f"{name}.{key}" if name else str(key)
                )
        return
    yield f"{name}: {old!r} → {new!r}" if name else f"{old!r} → {new!r}"


def read_ledger(path: Path) -> dict[str, dict[str, str]]:
    """Return the definitions behind known fingerprints; nothing from a file that is missing or damaged."""
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): {str(name): str(row[name]) for name in row} for key, row in ledger.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def extend_ledger(codes: Ledger, path: Path) -> None:
    """Add the definitions behind fingerprints; a folder that cannot be written costs an explanation only."""
    ledger = read_ledger(path)
    if codes.keys() <= ledger.keys():
        return
    try:
        write_text(path, json.dumps(ledger | {key: _shorten_hashes(row) for key, row in codes.items()}))
    except OSError:
        return


def _shorten_hashes(definitions: Mapping[str, str]) -> dict[str, str]:
    return {name: sha256[:12] for name, sha256 in definitions.items()}
