"""Scores of one-word answers: the first word of a generation against the allowed ones. Pure, torch-free.

The paper generates and compares; it does not say what happens to outputs that are no answer. Here they are wrong.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_LABEL = re.compile(r"\s*(?:A|Answer):", re.IGNORECASE)  # with which models begin an answer
_FIRST_WORD = re.compile(r"\W*(\w+)")
_LETTER = re.compile(r"\s*\(?([A-D])(?=[).,;\n]|\s*$)")


def _unlabelled(output: str) -> str:
    found = _LABEL.match(output)
    return output[found.end() :] if found else output


def first_word(output: str) -> str:
    """Return the first word in lower case, without the marks around it; empty if there is none.

    A label "A:" or "Answer:" before it is skipped.
    """
    found = _FIRST_WORD.match(_unlabelled(output))
    return found[1].casefold() if found else ""


def first_letter(output: str) -> str:
    """Return A, B, C or D where the output begins with that letter alone, as `B`, `(B)`, `B.`; else empty.

    "A dog" is no answer, since the letter has to stand by itself, nor is "A:", which is the label of an answer.
    """
    found = _LETTER.match(_unlabelled(output))
    return found[1] if found else ""


def judged(answer: str, allowed: Sequence[str], gold: str) -> dict[str, float]:
    """Return acc (1 for the right answer) and answered (1 for any allowed answer)."""
    return {"acc": float(answer == gold), "answered": float(answer in allowed)}


def entailment(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return the scores of 'true' or 'false'; GLUE's label 0 is entailment."""
    return judged(first_word(results[0]), ("true", "false"), ("true", "false")[doc["label"]])


def closed_question(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return the scores of 'yes' or 'no'; label 1 is yes."""
    return judged(first_word(results[0]), ("no", "yes"), ("no", "yes")[doc["label"]])


def sentiment(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return the scores of 'positive' or 'negative'; label 1 is positive."""
    labels = ("negative", "positive")
    return judged(first_word(results[0]), labels, labels[doc["label"]])


def reply(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return the scores of a letter from A to D."""
    return judged(first_letter(results[0]), ("A", "B", "C", "D"), doc["answers"])
