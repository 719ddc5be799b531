"""Scores of answers that are numbers. Pure, torch-free."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_GOLD = "#### "


def numbers(text: str) -> list[Decimal]:
    """Return the numbers of a text in order; commas between thousands are left out."""
    return [Decimal(found.replace(",", "")) for found in _NUMBER.findall(text)]


def gold_text(answer: str) -> str:
    """Return what stands behind '#### ' in a reference solution."""
    return answer.split(_GOLD)[1]


def first_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return acc and answered: the first number of the output equals the answer; there is a number."""
    found = numbers(results[0])
    return _scores(found[:1], doc)


def last_number(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return acc and answered: the last number of a written-out solution equals the answer; there is a number."""
    found = numbers(results[0])
    return _scores(found[-1:], doc)


def _scores(found: Sequence[Decimal], doc: Mapping[str, Any]) -> dict[str, float]:
    gold = numbers(gold_text(doc["answer"]))[0]
    return {"acc": float(found == [gold]), "answered": float(bool(found))}


def substring(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return acc as the released code counts it: the answer's characters occur anywhere in the output.

    So "1" is found in "11" and in "$1,000".
    """
    return {"acc": float(gold_text(doc["answer"]) in results[0])}
