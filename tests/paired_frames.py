"""Small hand-made tables for the tests of the inference: one model, a task of answers, one of texts, some edits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from collateral.analysis.tables.collect import KEY
from collateral.evaluation.harness import ITEM_SCHEMA

UNEDITED = {"dataset": None, "seed": None, "editor": "unedited", "edits": 0}
WORDS = (20, 30, 40, 25, 35)
BEFORE = (-80.0, -126.0, -150.0, -110.0, -133.0)
ITEMS = {"model": pl.String, **KEY, "suite": pl.String, **ITEM_SCHEMA}
Key = Mapping[str, Any]


def at(editor: str, edits: int, seed: int = 0, dataset: str = "capitals") -> Key:
    return {"dataset": dataset, "seed": seed, "editor": editor, "edits": edits}


def answers(
    key: Key, right: Sequence[float], task: str = "facts", chance: float | None = 0.0
) -> dict[str, Any]:
    """A checkpoint's row and items of a task of 0/1 scores."""
    n, mean = len(right), sum(right) / len(right)
    about = {"model": "tiny", **key, "suite": "core", "task": task, "metric": "acc"}
    row = {
        **about,
        "ability": f"ability of {task}",
        "value": mean,
        "stderr": math.sqrt(mean * (1 - mean) / (n - 1)),
        "n": n,
        "chance": chance,
        "higher_is_better": True,
        "primary": True,
    }
    return {"row": row, "items": [item(about, place, score, 1.0) for place, score in enumerate(right)]}


def texts(key: Key, likelihoods: Sequence[float], metric: str = "word_perplexity") -> dict[str, Any]:
    """A checkpoint's row and items of a perplexity; of bits per byte, the words stand for bytes."""
    about = {"model": "tiny", **key, "suite": "core", "task": "prose", "metric": metric}
    loss = -sum(likelihoods) / sum(WORDS)
    try:
        value = loss / math.log(2) if metric == "bits_per_byte" else math.exp(loss)
    except OverflowError:
        value = math.inf
    row = {
        **about,
        "ability": "english",
        "value": value,
        "stderr": None,
        "n": len(likelihoods),
        "chance": None,
        "higher_is_better": False,
        "primary": True,
    }
    pairs = zip(likelihoods, WORDS, strict=True)
    return {
        "row": row,
        "items": [item(about, place, ll, float(words)) for place, (ll, words) in enumerate(pairs)],
    }


def item(about: Key, place: int, score: float, weight: float) -> dict[str, Any]:
    return {
        **about,
        "task_hash": f"version of {about['task']}",
        "doc_id": place,
        "doc_hash": f"document {place}",
        "target_hash": f"target {place}",
        "score": score,
        "weight": weight,
        "answer": None,
    }


def frames(*checkpoints: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
    """The tables abilities and ability-items of some checkpoints."""
    kinds = {
        "model": pl.String,
        **KEY,
        "suite": pl.String,
        "task": pl.String,
        "ability": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "stderr": pl.Float64,
        "n": pl.Int32,
        "chance": pl.Float64,
        "higher_is_better": pl.Boolean,
        "primary": pl.Boolean,
    }
    return {
        "abilities": pl.DataFrame([one["row"] for one in checkpoints], schema=kinds),
        "ability-items": pl.DataFrame([row for one in checkpoints for row in one["items"]], schema=ITEMS),
    }


def reliability(key: Key, scores: Mapping[int, float], when: str = "now") -> list[dict[str, Any]]:
    """Probes of edits: position → teacher-forced score; the generated answer is right where that is 1."""
    return [
        {
            "model": "tiny",
            **key,
            "fact_id": f"fact-{position}",
            "position": position,
            "kind": "reliability",
            "probe": 0,
            "when": when,
            "token_accuracy": score,
            "generated_match": score == 1.0,
        }
        for position, score in scores.items()
    ]


def efficacy(*probes: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    kinds = {
        **KEY,
        "fact_id": pl.String,
        "position": pl.Int32,
        "kind": pl.String,
        "probe": pl.Int32,
        "when": pl.String,
        "token_accuracy": pl.Float64,
        "generated_match": pl.Boolean,
    }
    return pl.DataFrame([row for rows in probes for row in rows], schema=kinds)


def not_evaluated(*keys: Key) -> pl.DataFrame:
    """The table collapses, of checkpoints that were left out."""
    rows = [{"model": "tiny", **key, "collapsed": True, "first": False, "evaluated": False} for key in keys]
    return pl.DataFrame(
        rows, schema={**KEY, "collapsed": pl.Boolean, "first": pl.Boolean, "evaluated": pl.Boolean}
    )
