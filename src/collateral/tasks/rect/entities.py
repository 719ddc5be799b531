"""Entity-level F1 of names that a model lists. Pure, torch-free."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_BETWEEN = re.compile(r"[,;\n•|]+")
_BULLET = re.compile(r"^(?:[-*–]\s+|\d+[.)]\s*|and\s+)")
_EDGES = " \t\"'“”‘’`.:!?()[]"
_NOTHING = frozenset({"", "none", "no", "n/a", "na", "nothing", "no entity", "no entities"})


def entities(output: str) -> frozenset[str]:
    """Return the entities that an output lists, in lower case, white space as single blanks.

    The list is the first line that is not empty; items are cut at commas, semicolons and bars, but not at "and",
    which is part of names. Bullets, quotation marks, brackets and full stops around an item are dropped; "none" and
    its like name nothing.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    parts = _BETWEEN.split(lines[0]) if lines else []
    return frozenset(_plain(part) for part in parts) - _NOTHING


def _plain(text: str) -> str:
    bare = _BULLET.sub("", text.strip())
    return " ".join(bare.strip(_EDGES).split()).casefold()


def found(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return f1 of one sentence and type as (2·TP, 2·TP + FP + FN), whose sums make the micro-average.

    Entities count once in a sentence; the match is exact but for case, white space and marks at the ends.
    """
    gold = frozenset(map(_plain, doc["entities"])) - {""}
    said = entities(results[0])
    right = len(gold & said)
    return {"f1": (2.0 * right, float(len(gold) + len(said)))}


def micro_f1(items: Sequence[tuple[float, float]]) -> float:
    """Return F1 = Σ 2·TP / Σ (2·TP + FP + FN); 1 where there is nothing to find and nothing was named."""
    total = sum(weight for _, weight in items)
    return sum(score for score, _ in items) / total if total else 1.0
