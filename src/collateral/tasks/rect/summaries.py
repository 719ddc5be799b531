"""ROUGE of a summary. Pure, torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

_KINDS = ("rouge1", "rouge2", "rougeL")


def summary(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return rouge (mean of the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L) and the three; 0 for an empty summary.

    The summary is the first paragraph of the output.

    DIFFERS: released code uses the package `rouge` 1.0.1 and cuts the last 13 characters off every output; here
    `rouge_score` without stemming, as lm-eval itself uses.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scores = RougeScorer(list(_KINDS)).score(doc["summary"], results[0].strip().split("\n\n")[0])
    each = {kind: float(scores[kind].fmeasure) for kind in _KINDS}
    return {"rouge": sum(each.values()) / len(each), **each}
