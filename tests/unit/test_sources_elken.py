import logging
from pathlib import Path
from typing import Any

import pytest

from collateral.data.facts import Fact, Probe
from collateral.data.loaders import elken
from sourcefiles import HOSTILE, changed, refusal, written


def asked(question: str, subject: str, answer: str, relation: str, kind: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "question": question,
        "subject": {"id": "Q1", "name": subject},
        "answer": {"id": "Q2", "name": answer, "alias": []},
        "rel_id": relation,
    }
    return found if kind is None else {**found, "type": kind}


def likely(question: str, answer: str) -> dict[str, Any]:
    return {"question": question, "candidate": "(A) Grow (B) Shrink  (C) No change", "answer": answer}


EVENT: dict[str, Any] = {
    "event_type": "divorce",
    "event": "Ada Brook and Tom Weir have parted.",
    "tendency": {
        "qas": [likely("How may Ada Brook's fame change?", "A")],
        "local_qas": [likely("How may the tides change?", "C")],
    },
    "fact": {
        "qas": [
            asked("Who is the ex-husband of Ada Brook?", "Ada Brook", "Tom Weir", "ex", 0),
            asked("Where is the ex-husband of Ada Brook from?", "Ada Brook", "Norfield", "P19", 1),
            asked("Where does Ada Brook live?", "Ada Brook", "unknown", "P551", 0),
            asked("Who is the ex-wife of him?", "Tom Weir", "Ada Brook", "ex", 0),
            asked("Who is the ex-wife of Tom Weir?", "Tom Weir", "Ada Brook", "ex", 0),
        ],
        "local_qas": [asked("Where was Ada Brook born?", "Ada Brook", "Sandley", "P19")],
    },
}
TREND: dict[str, Any] = {
    "event_type": "Military",
    "event": "The fleet gets a ship.",
    "tendency": {"qas": [likely("How may the fleet change?", "A")], "local_qas": []},
    "fact": {"qas": [], "local_qas": []},
}


def test_an_event_becomes_a_case_of_the_facts_that_it_states(tmp_path: Path) -> None:
    assert elken.load(written(tmp_path, [TREND, EVENT])) == [
        Fact(
            fact_id="elken-000001-1",
            subject="Ada Brook",
            relation="ex",
            prompt="Question: Who is the ex-husband of {}?\nAnswer:",
            target_new="Tom Weir",
            target_true="",
            question_type="question",
            source="ELKEN, records.json record 1",
            case_id="elken-000001",
        ),
        Fact(
            fact_id="elken-000001-2",
            subject="Tom Weir",
            relation="ex",
            prompt="Question: Who is the ex-wife of {}?\nAnswer:",
            target_new="Ada Brook",
            target_true="",
            neighborhood=(
                Probe("Question: Where was Ada Brook born?\nAnswer:", "Sandley"),
                Probe(
                    "Question: How may the tides change?\n(A) Grow (B) Shrink  (C) No change\nAnswer:", "C"
                ),
            ),
            portability=(
                Probe("Question: Where is the ex-husband of Ada Brook from?\nAnswer:", "Norfield"),
                Probe(
                    "Question: How may Ada Brook's fame change?\n(A) Grow (B) Shrink  (C) No change\nAnswer:",
                    "A",
                ),
            ),
            question_type="question",
            source="ELKEN, records.json record 1",
            case_id="elken-000001",
        ),
    ]


def test_what_cannot_be_edited_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        elken.load(written(tmp_path, [TREND, EVENT]))
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "1 of 5 factual questions left out: the answer is 'unknown'",
        "1 of 5 factual questions left out: the question does not name its subject",
        "1 of 2 events left out: no fact that can be edited",
    ]
    assert "no event states a fact" in refusal(elken.load, written(tmp_path, [TREND]))


def test_a_limit_counts_events_and_cuts_none(tmp_path: Path) -> None:
    path = written(tmp_path, [TREND, EVENT, EVENT, EVENT])
    assert [fact.case_id for fact in elken.load(path, 2)] == ["elken-000001"] * 2 + ["elken-000002"] * 2


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("event", "", "field 'event' is empty"),
        ("fact", ..., "field 'fact' is missing"),
        ("fact.qas", {}, "field 'fact.qas' is an object ({}); a list of objects is needed"),
        ("fact.qas.0.type", 2, "field 'fact.qas[0].type' is 2; 0 (stated) or 1 (derived) is allowed"),
        ("fact.qas.0.type", "0", "field 'fact.qas[0].type' is text ('0'); a whole number is needed"),
        ("fact.qas.1.answer", "Norfield", "field 'fact.qas[1].answer' is text ('Norfield'); an object"),
        ("fact.qas.0.subject.name", ..., "field 'fact.qas[0].subject.name' is missing"),
        ("fact.qas.0.rel_id", 3, "field 'fact.qas[0].rel_id' is a number (3); text is needed"),
        ("fact.qas.0.question", "{} of Ada Brook?", "field 'fact.qas[0].question': the prompt"),
        ("fact.local_qas.0.question", None, "field 'fact.local_qas[0].question' is null (None)"),
        ("tendency.qas.0.answer", "D", "field 'tendency.qas[0].answer' is 'D'; one of the letters A, B, C"),
        ("tendency.local_qas.0.candidate", "(A) Grow", "field 'tendency.local_qas[0].answer' is 'C'; one of"),
    ],
)
def test_a_malformed_event_is_named(tmp_path: Path, keys: str, value: object, said: str) -> None:
    path = written(tmp_path, [TREND, changed(EVENT, keys, value)])
    message = refusal(elken.load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_data(tmp_path: Path, text: str) -> None:
    record = changed(
        changed(EVENT, "fact.qas.0.subject.name", text), "fact.qas.0.question", f"Who left {text}?"
    )
    record = changed(record, "fact.qas.0.answer.name", text)
    fact = elken.load(written(tmp_path, [record]))[0]
    assert fact.text() == f"Question: Who left {text}?\nAnswer:"
    assert fact.subject == fact.target_new == text
