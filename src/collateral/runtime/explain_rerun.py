"""Why the workflow would make a file anew, in words, from what Snakemake's dry run says. Torch-free."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collateral.io.atomic import write_text

LEDGER = Path(".snakemake/collateral.code.json")
"""Which code stood behind a fingerprint: fingerprint → definition → beginning of its hash."""

_JOB = re.compile(r"^Job \d+: (?P<job>.*)\nReason: (?P<reason>.*)$", re.MULTILINE)
_PARAMS = re.compile(
    r"Params have changed since last execution: Union of exclusive params before and now across all output: "
    r"before: (?P<before>.*?) now: (?P<now>.*?) ?$"
)
_PLAIN = {
    "Missing output files": "not there: {}",
    "Input files updated by another job": "it builds on what is made anew: {}",
    "Updated input files": "what it builds on has another content: {}",
    "Set of input files has changed since last execution": "it builds on other files than before",
    "Software environment definition has changed since last execution": "its environment's definition changed",
    "Forced execution": "you asked for it",
}
_SHOWN = 3  # files of one reason that are named
_FINGERPRINT = re.compile(r"[0-9a-f]{16}( .*)?", re.DOTALL)


def explained(text: str, ledger: Mapping[str, Mapping[str, str]]) -> str:
    """Return each job that would run with its reasons, those that nothing else causes first.

    Args:
        text: output of `snakemake --dry-run`.
        ledger: see `read_ledger`.
    """
    found = [(one["job"], list(_reasons(one["reason"], ledger))) for one in _JOB.finditer(text)]
    first = [one for one in found if not _follows(one[1])]
    later = [one for one in found if _follows(one[1])]
    lines = []
    for title, own in (("What begins it:", first), ("What follows from it:", later)):
        if own:
            lines.append(title)
            lines += [f"  {job}\n    {'; '.join(reasons)}" for job, reasons in own]
    return "\n".join(lines)


def _follows(reasons: list[str]) -> bool:
    return any(one.startswith("it builds on what is made anew") for one in reasons)


def _reasons(text: str, ledger: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    params = _PARAMS.search(text)
    if params:
        yield from _changes(params["before"], params["now"], ledger)
        text = text.replace(params[0], "").rstrip("; ")
    for part in filter(None, text.split("; ")):
        name, _, about = part.partition(": ")
        files = about.split(", ")
        shown = ", ".join(files[:_SHOWN])
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        yield _PLAIN[name].format(shown + more) if name in _PLAIN else part


def _changes(before: str, now: str, ledger: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield which settings, and which files of code, are others than when the file was made."""
    try:
        old, new = ast.literal_eval(f"[{before}]"), ast.literal_eval(f"[{now}]")
    except (ValueError, SyntaxError):
        yield f"its settings changed: {before} → {now}"
        return
    codes = [[one for one in own if _is_fingerprint(one)] for own in (old, new)]
    for one, other in zip(*codes, strict=False):
        yield _code(one, other, ledger)
    old, new = ([one for one in own if not _is_fingerprint(one)] for own in (old, new))
    told = list(_differences(old[0] if len(old) == 1 else old, new[0] if len(new) == 1 else new, ""))
    if told:
        yield f"settings changed: {', '.join(told)}"


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None


def _code(before: str, now: str, ledger: Mapping[str, Mapping[str, str]]) -> str:
    (old, _, texts), (new, _, others) = before.partition(" "), now.partition(" ")
    if old == new:
        return f"the tasks' texts or the libraries changed: {texts} → {others}"
    if old not in ledger or new not in ledger:
        return "the code that makes it changed"
    known, own = ledger[old], ledger[new]
    names = sorted(name for name in known.keys() | own.keys() if known.get(name) != own.get(name))
    return f"the code that makes it changed: {', '.join(names)}"


def _differences(old: Any, new: Any, name: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key) or (key in old) != (key in new):
                yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        return
    yield f"{name}: {old!r} → {new!r}" if name else f"{old!r} → {new!r}"


def read_ledger(path: Path) -> dict[str, dict[str, str]]:
    """Return the code behind known fingerprints; nothing from a file that is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): {str(name): str(own[name]) for name in own} for key, own in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def remember(codes: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Add the code behind fingerprints to a ledger; a folder that cannot be written costs an explanation only."""
    known = read_ledger(path)
    if codes.keys() <= known.keys():
        return
    try:
        write_text(path, json.dumps(known | {key: _short(own) for key, own in codes.items()}))
    except OSError:
        return


def _short(code: Mapping[str, str]) -> dict[str, str]:
    return {name: sha256[:12] for name, sha256 in code.items()}
