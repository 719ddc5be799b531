"""Scores of free answers to open questions, and the released scoring with its fault. Pure, torch-free."""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_LABEL = re.compile(r"\s*(?:A|Answer):", re.IGNORECASE)  # with which models begin an answer
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return a text in lower case without ASCII punctuation, articles and extra white space (SQuAD's rule)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def open_question(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return contains (an accepted answer occurs in the output as whole words) and exact_match (it is the output).

    Only the first line that is not empty counts, after a label "A:" or "Answer:" if there is one: what follows is no
    longer the answer.
    """
    label = _LABEL.match(results[0])
    output = results[0][label.end() :] if label else results[0]
    lines = [line for line in output.splitlines() if line.strip()]
    said = normalised(lines[0]) if lines else ""
    accepted = {normalised(answer) for answer in doc["answer"]} - {""}
    return {
        "contains": float(any(f" {answer} " in f" {said} " for answer in accepted)),
        "exact_match": float(said in accepted),
    }


def prompt(doc: Mapping[str, Any]) -> str:
    """Return the prompt of the paper's table 2 for open-domain question answering."""
    return (
        "Refer to the passage below and answer the following question. "
        f"Passage: {doc['passage']} Question: {doc['question']}"
    )


def released(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return what the released scoring adds to its count for this item, whatever came before.

    The count is (with a clean flag, with a flag left set, whether the flag is set after a clean start). The text that
    is scored is prompt and output together, since the prompt has no "Answer:" to cut at. The count grows by 1 for
    an answer that is the first or last word; otherwise by 1 for each word that is an answer, and by 1 for the first
    longer answer that is found, which sets the flag and ends the item. The flag is never cleared: once set, an item
    ends after its first word.

    DIFFERS: released code also scores the end-of-text tokens that pad the prompt, which join its first word.
    """
    words = normalised((prompt(doc) + results[0]).replace("\n", " ")).split(" ")
    accepted = {normalised(answer) for answer in doc["answer"]}
    if words[0] in accepted or words[-1] in accepted:
        return {"released": (1, 1, 0)}
    clean, sets = _counted(words, accepted, ended=False)
    stale, _ = _counted(words, accepted, ended=True)
    return {"released": (clean, stale, int(sets))}


def _counted(words: Sequence[str], accepted: set[str], ended: bool) -> tuple[int, bool]:
    longest = max(map(len, accepted), default=0)
    count = 0
    for start in range(len(words) - 1):
        said = words[start]
        if said in accepted:
            count += 1
            continue
        for word in words[start + 1 :]:
            said = f"{said} {word}"
            if said in accepted:
                count, ended = count + 1, True
                break
            if len(said) > longest:
                break  # no longer text can match
        if ended:
            break
    return count, ended


def released_share(items: Sequence[tuple[int, int, int]]) -> float:
    """Return the released score: the count of all items in order, with the flag carried on, by their number."""
    total, flag = 0, False
    for clean, stale, sets in items:
        total += stale if flag else clean
        flag = flag or bool(sets)
    return total / len(items)
