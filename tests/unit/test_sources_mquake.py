import logging
from pathlib import Path
from typing import Any

import pytest

from collateral.data.edit_order import permutation
from collateral.data.facts import Fact, Probe, read_facts, write_facts
from collateral.data.loaders import mquake
from sourcefiles import HOSTILE, changed, refusal, shared, written


def edit(subject: str, relation: str, new: str, true: str) -> dict[str, Any]:
    return {
        "prompt": f"The {relation} of {{}} is",
        "relation_id": relation,
        "target_new": {"str": new, "id": "Q1"},
        "target_true": {"str": true, "id": "Q2"},
        "subject": subject,
        "question": f"What is the {relation} of {subject}?",
    }


def hop(question: str, answer: str, *aliases: str) -> dict[str, Any]:
    return {"question": question, "cloze": question, "answer": answer, "answer_alias": list(aliases)}


CASE: dict[str, Any] = {
    "case_id": 12,
    "requested_rewrite": [
        edit("Grey Light", "builder", "Ada Brook", "Tom Weir"),
        edit("Ada Brook", "town", "Sandley", "Norfield"),
    ],
    "questions": ["Where does Grey Light's builder live?", "Which town houses who built Grey Light?"],
    "answer": "Westham",
    "answer_alias": [],
    "new_answer": "Sandley",
    "new_answer_alias": ["Sandley-on-Sea"],
    "single_hops": [
        hop("What is the builder of Grey Light?", "Tom Weir", "Thomas Weir", "T. Weir"),
        hop("What is the town of Tom Weir?", "Westham"),
    ],
    "new_single_hops": [hop("What is the builder of Grey Light?", "Ada Brook")],
}


def test_a_case_becomes_facts_in_order_with_its_questions_on_the_last(tmp_path: Path) -> None:
    assert mquake.load(written(tmp_path, [CASE])) == [
        Fact(
            fact_id="mquake-000012-1",
            subject="Grey Light",
            relation="builder",
            prompt="The builder of {} is",
            target_new="Ada Brook",
            target_true="Tom Weir",
            true_aliases=("Thomas Weir", "T. Weir"),
            paraphrases=("What is the builder of Grey Light?",),
            source="MQuAKE, records.json record 0",
            case_id="mquake-000012",
        ),
        Fact(
            fact_id="mquake-000012-2",
            subject="Ada Brook",
            relation="town",
            prompt="The town of {} is",
            target_new="Sandley",
            target_true="Norfield",
            paraphrases=("What is the town of Ada Brook?",),
            portability=(
                Probe("Where does Grey Light's builder live?", "Sandley"),
                Probe("Which town houses who built Grey Light?", "Sandley"),
            ),
            source="MQuAKE, records.json record 0",
            case_id="mquake-000012",
        ),
    ]


def test_a_limit_counts_cases_and_cuts_none(tmp_path: Path) -> None:
    path = written(tmp_path, [changed(CASE, "case_id", number) for number in range(3)])
    assert [fact.case_id for fact in mquake.load(path, 2)] == ["mquake-000000"] * 2 + ["mquake-000001"] * 2


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("case_id", 1, "field 'case_id' is 1, as in record 0"),
        ("questions", [], "field 'questions' is an empty list; at least one text"),
        ("new_answer", ..., "field 'new_answer' is missing"),
        ("requested_rewrite", {}, "field 'requested_rewrite' is an object ({}); a list of objects is needed"),
        ("requested_rewrite", [], "field 'requested_rewrite' is an empty list; at least one object"),
        ("requested_rewrite", ["x"], "field 'requested_rewrite[0]' is text ('x'); an object is needed"),
        ("requested_rewrite.1.question", ..., "field 'requested_rewrite[1].question' is missing"),
        (
            "requested_rewrite.1.prompt",
            "It is",
            "field 'requested_rewrite[1].prompt' is 'It is'; exactly one '{}'",
        ),
        ("requested_rewrite.0.target_new", "x", "field 'requested_rewrite[0].target_new' is text ('x')"),
        ("requested_rewrite.0.target_new.str", "", "field 'requested_rewrite[0].target_new.str' is empty"),
        ("single_hops.1.answer_alias", [None], "field 'single_hops[1].answer_alias[0]' is null (None)"),
    ],
)
def test_a_malformed_case_is_named(tmp_path: Path, keys: str, value: object, said: str) -> None:
    path = written(tmp_path, [changed(CASE, "case_id", 1), changed(CASE, keys, value)])
    message = refusal(mquake.load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


@pytest.mark.parametrize("text", [*HOSTILE, "the {} set"])
def test_hostile_text_stays_data(tmp_path: Path, text: str) -> None:
    record = changed(CASE, "requested_rewrite.0.subject", text)
    for keys in ("requested_rewrite.0.target_new.str", "questions.0", "new_answer"):
        record = changed(record, keys, text)
    facts = mquake.load(written(tmp_path, [record]))
    assert facts[0].text() == f"The builder of {text} is"
    start, end = facts[0].subject_span("Yes. {}")
    assert facts[0].text("Yes. {}")[start:end] == facts[0].subject == facts[0].target_new == text
    assert facts[1].portability[0] == Probe(text, text)
    write_facts(facts, tmp_path / "facts.parquet")
    assert read_facts(tmp_path / "facts.parquet") == facts


def test_a_literal_placeholder_in_a_prompt_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [changed(CASE, "requested_rewrite.0.prompt", "{} of {} is")])
    assert "exactly one '{}' is needed, for the subject" in refusal(mquake.load, path)


def test_the_public_file_of_hard_cases(caplog: pytest.LogCaptureFixture) -> None:
    facts = mquake.load(shared("mquake_hard.json"))
    assert len(facts) == 1716
    assert len({fact.case_id for fact in facts}) == 429
    assert len({(fact.subject, fact.relation, fact.target_new) for fact in facts}) == 769
    assert [len(fact.portability) for fact in facts] == [0, 0, 0, 3] * 429
    assert sum(bool(fact.true_aliases) for fact in facts) == 450
    first, last = facts[0], facts[3]
    assert (first.fact_id, first.subject, first.prompt) == (
        "mquake-007417-1",
        "Hey Jude",
        "{} was performed by",
    )
    assert (first.target_new, first.target_true, first.true_aliases[1]) == (
        "Madonna",
        "The Beatles",
        "Fab Four",
    )
    assert first.paraphrases == ("Who performed Hey Jude?",)
    assert (last.subject, last.relation, last.portability[0].target) == ("Australia", "P37", "Arabic")
    for fact in facts:
        start, end = fact.subject_span()
        assert fact.text()[start:end] == fact.subject
    with caplog.at_level(logging.WARNING):
        order = permutation(facts, 0, "drop")
    assert order.height == 4 * 75
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("354 cases (1416 facts) hold a fact that repeats an earlier one's")
    assert order["fact_id"].str.slice(-1).to_list() == ["1", "2", "3", "4"] * 75
