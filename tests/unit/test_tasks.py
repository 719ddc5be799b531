"""The ability tasks of this package: their items, how they load, how they score, what their fingerprint sees."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from collateral.tasks.registry import (
    EMBEDDED,
    chance_levels,
    load_tasks,
    task_metadata,
    task_names,
)

CHOICE = ["closed-qa", "dialogue", "ner", "nli", "open-qa", "reasoning", "sentiment", "summarization"]
NAMES = [name for name in task_names() if name.startswith("embedded-")]
PAIRED = ["nli", "sentiment"]  # each set of options is asked in both directions


def items(slug: str) -> list[dict[str, Any]]:
    lines = (EMBEDDED / f"{slug}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    return load_tasks(NAMES)


def test_the_package_holds_eight_abilities_and_english() -> None:
    assert sorted(f"embedded-{slug}" for slug in [*CHOICE, "english"]) == NAMES
    assert {task_metadata(name)["ability"] for name in NAMES} == {*CHOICE, "english"}


@pytest.mark.parametrize("slug", CHOICE)
def test_items_are_sound(slug: str) -> None:
    rows = items(slug)
    assert len(rows) >= 56
    for row in rows:
        options = row["options"]
        assert len(set(options)) == len(options) >= 2
        assert 0 <= row["answer"] < len(options)
        for text in [row["text"], *options]:
            assert text == text.strip()
            assert text, row
            assert "  " not in text, row
    contexts = Counter((row["text"], row.get("entity")) for row in rows)
    assert max(contexts.values()) == 1


@pytest.mark.parametrize("slug", CHOICE)
def test_gold_positions_are_balanced(slug: str) -> None:
    rows = items(slug)
    positions = Counter(row["answer"] for row in rows)
    width = len(rows[0]["options"])
    assert set(positions) == set(range(width))
    assert max(positions.values()) - min(positions.values()) <= 1


@pytest.mark.parametrize("slug", PAIRED)
def test_each_pair_of_options_is_asked_in_both_directions(slug: str) -> None:
    gold = {}
    for row in items(slug):
        gold.setdefault(frozenset(row["options"]), []).append(row["options"][row["answer"]])
    for options, answers in gold.items():
        counts = Counter(answers)
        assert set(counts) == options
        assert len(set(counts.values())) == 1, counts


@pytest.mark.parametrize("slug", CHOICE)
def test_the_longer_option_is_not_the_right_one(slug: str) -> None:
    """Choosing the longest option finds the answer at most a fifth more often than chance."""
    rows = items(slug)
    hits = 0.0
    for row in rows:
        longest = max(map(len, row["options"]))
        tied = [i for i, option in enumerate(row["options"]) if len(option) == longest]
        hits += (row["answer"] in tied) / len(tied)
    assert hits / len(rows) <= 1 / len(rows[0]["options"]) + 0.2


def test_closed_qa_options_stand_in_the_passage() -> None:
    for row in items("closed-qa"):
        before_question = row["text"][: row["text"].index("?")]
        passage = before_question[: before_question.rindex(". ") + 1]
        words = set(re.findall(r"\w+", passage.lower()))
        assert {option.lower() for option in row["options"]} <= words, row


def test_the_entity_stands_in_its_sentence() -> None:
    for row in items("ner"):
        assert row["entity"] in row["text"]
        assert row["options"][row["answer"]] not in row["text"].lower().split()


@pytest.mark.parametrize("slug", CHOICE)
def test_chance_is_one_over_the_number_of_options(slug: str) -> None:
    rows = items(slug)
    mean = math.fsum(1 / len(row["options"]) for row in rows) / len(rows)
    assert chance_levels(f"embedded-{slug}") == pytest.approx(mean, abs=1e-12)


def test_perplexity_has_no_chance_level() -> None:
    assert chance_levels("embedded-english") is None
    assert task_metadata("embedded-english")["primary"] == "word_perplexity"
    assert task_metadata("embedded-english")["higher_is_better"] is False


@pytest.mark.parametrize("name", NAMES)
def test_metadata_agrees_with_the_metrics(name: str) -> None:
    config = yaml.safe_load((EMBEDDED / f"{name.removeprefix('embedded-')}.yaml").read_text())
    metadata = config["metadata"]
    metrics = {metric["metric"]: metric["higher_is_better"] for metric in config["metric_list"]}
    assert metrics[metadata["primary"]] == metadata["higher_is_better"]
    assert metadata["version"]
    assert metadata["prompt_source"]


def test_every_task_loads_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = load_tasks(["embedded-nli", "embedded-english"])
    assert list(tasks) == ["embedded-nli", "embedded-english"]
    assert [doc["text"] for doc in tasks["embedded-nli"].test_docs()] == [row["text"] for row in items("nli")]


def test_english_is_several_documents_of_prose(loaded: dict[str, Any]) -> None:
    docs = list(loaded["embedded-english"].test_docs())
    words = [len(doc["text"].split()) for doc in docs]
    assert len(docs) == len({doc["kind"] for doc in docs}) >= 5
    assert min(words) >= 100
    assert 900 <= sum(words) <= 1500


def _fake(prefers: Any) -> Any:
    from lm_eval.api.model import LM

    class Chooser(LM):
        """Gives log-likelihood -1 to the strings that it prefers and -2 to all others."""

        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            return [(-1.0 if prefers(*request.args) else -2.0, False) for request in requests]

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            return [-2.0 * len(request.args[0].split()) for request in requests]

        def generate_until(self, requests: Any) -> list[str]:
            raise AssertionError("no task of this package generates")

    return Chooser()


def _evaluate(model: Any, tasks: dict[str, Any]) -> dict[str, dict[str, float]]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model,
        tasks=list(tasks.values()),
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=False,
    )
    return results["results"]


def _gold_pairs() -> set[tuple[str, str]]:
    pairs = set()
    for slug in CHOICE:
        for row in items(slug):
            tail = f" Here, {row['entity']} is a" if slug == "ner" else ""
            pairs.add((row["text"] + tail, " " + row["options"][row["answer"]]))
    return pairs


@pytest.mark.parametrize(("right", "accuracy"), [(True, 1.0), (False, 0.0)])
def test_accuracy_counts_the_preferred_gold_answers(
    loaded: dict[str, Any], right: bool, accuracy: float
) -> None:
    gold = _gold_pairs()
    scores = _evaluate(_fake(lambda context, answer: ((context, answer) in gold) is right), loaded)
    assert {scores[f"embedded-{slug}"]["acc,none"] for slug in CHOICE} == {accuracy}


def test_word_perplexity_of_a_model_with_two_nats_a_word(loaded: dict[str, Any]) -> None:
    """exp(-(-2 · words) / words) = e², whatever the documents are."""
    scores = _evaluate(_fake(lambda *_: True), {"embedded-english": loaded["embedded-english"]})
    assert scores["embedded-english"]["word_perplexity,none"] == pytest.approx(math.exp(2))
