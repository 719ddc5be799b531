import logging
from pathlib import Path
from typing import Any

import pytest

from collateral.data.edit_order import permutation
from collateral.data.facts import Fact, Probe
from collateral.data.loaders import ckd
from sourcefiles import HOSTILE, changed, refusal, written


def triple(subject: str, relation: str, true: str, new: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "relation": {
            "id": relation.upper(),
            "prompt": f"The {relation} of {{}} is",
            "query": f"Who is the {relation} of {{}}?",
            "label": relation,
        },
        "subject": {"id": "Q1", "label": subject},
        "object": {"id": "Q2", "label": true},
    }
    return found if new is None else {**found, "new_object": {"id": "Q3", "label": new}}


REVERSE: dict[str, Any] = {
    "rule": "WORK>MAKER",
    "triples": [triple("Ada", "work", "Light"), triple("Light", "maker", "Ada")],
    "prerequisites": [],
    "type": "reverse",
    "edits": [triple("Ada", "work", "Light", "Bridge"), triple("Bridge", "maker", "Ada", "Tom")],
}
COMPOSITE: dict[str, Any] = {
    "rule": "CHILD&MOTHER>SPOUSE",
    "triples": [
        triple("Sam", "child", "Kim"),
        triple("Kim", "mother", "Eve"),
        triple("Sam", "spouse", "Eve"),
    ],
    "prerequisites": [0],
    "type": "composite",
    "edits": [triple("Kim", "mother", "Eve", "Joy"), triple("Sam", "spouse", "Eve", "Fay")],
}
COVERAGE: dict[str, Any] = {
    "triples": [triple("Ada", "work", "Light")],
    "prerequisites": [],
    "type": "coverage",
    "edits": [triple("Ada", "work", "Light", "Bridge"), triple("Ada", "work", "Bridge", "Tower")],
}


def test_a_reverse_pair_asks_for_the_maker_the_other_way_round(tmp_path: Path) -> None:
    assert ckd.load(written(tmp_path, [REVERSE])) == [
        Fact(
            fact_id="ckd-000000-1",
            subject="Ada",
            relation="WORK",
            prompt="The work of {} is",
            target_new="Bridge",
            target_true="Light",
            paraphrases=("Who is the work of Ada?",),
            source="ConflictEdit, records.json record 0",
            case_id="ckd-000000",
        ),
        Fact(
            fact_id="ckd-000000-2",
            subject="Bridge",
            relation="MAKER",
            prompt="The maker of {} is",
            target_new="Tom",
            target_true="Ada",
            paraphrases=("Who is the maker of Bridge?",),
            portability=(Probe("The work of Tom is", "Bridge"),),
            source="ConflictEdit, records.json record 0",
            case_id="ckd-000000",
        ),
    ]


def test_a_composite_pair_keeps_its_tied_fact(tmp_path: Path) -> None:
    first, second = ckd.load(written(tmp_path, [COMPOSITE]))
    assert first.neighborhood == first.portability == ()
    assert second.neighborhood == (Probe("The child of Sam is", "Kim"),)
    assert second.portability == (Probe("The mother of Kim is", "Fay"),)


def test_a_coverage_pair_stays_in_the_sequence_though_it_conflicts_with_itself(tmp_path: Path) -> None:
    first, second = facts = ckd.load(written(tmp_path, [COVERAGE]))
    assert (first.text(), second.text()) == ("The work of Ada is", "The work of Ada is")
    assert (first.target_new, second.target_true, second.target_new) == ("Bridge", "Bridge", "Tower")
    assert second.portability == second.neighborhood == ()
    assert permutation(facts, 0, "drop")["fact_id"].to_list() == ["ckd-000000-1", "ckd-000000-2"]


def test_pairs_that_ask_for_no_change_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same = changed(COMPOSITE, "edits.0.new_object.label", "Eve")
    with caplog.at_level(logging.WARNING):
        facts = ckd.load(written(tmp_path, [same, REVERSE]))
    assert {fact.case_id for fact in facts} == {"ckd-000001"}
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "1 of 2 records left out: an edit's new object is its old one"
    ]
    assert "every record is left out" in refusal(ckd.load, written(tmp_path, [same]))


def test_a_limit_counts_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, [REVERSE, COMPOSITE, COVERAGE])
    assert [fact.fact_id for fact in ckd.load(path, 1)] == ["ckd-000000-1", "ckd-000000-2"]


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("type", "round", "field 'type' is 'round' with 2 edits; coverage, reverse, composite with 2 edits"),
        ("edits", [COMPOSITE["edits"][0]], "field 'type' is 'composite' with 1 edits"),
        ("edits", [], "field 'edits' is an empty list; at least one object is needed"),
        ("edits.1.new_object", ..., "field 'edits[1].new_object' is missing"),
        ("edits.1.relation.prompt", "The", "field 'edits[1].relation.prompt' is 'The'; exactly one '{}'"),
        ("edits.0.relation.query", "{} {}", "field 'edits[0].relation.query' is '{} {}'; exactly one '{}'"),
        ("edits.0.subject.label", 4, "field 'edits[0].subject.label' is a number (4); text is needed"),
        ("prerequisites", [3], "field 'prerequisites' names triple 3; 0 to 2 are allowed"),
        ("prerequisites", [-1], "field 'prerequisites' names triple -1; 0 to 2 are allowed"),
        ("prerequisites", ["0"], "field 'prerequisites[0]' is text ('0'); a whole number is needed"),
    ],
)
def test_a_malformed_pair_is_named(tmp_path: Path, keys: str, value: object, said: str) -> None:
    path = written(tmp_path, [REVERSE, changed(COMPOSITE, keys, value)])
    message = refusal(ckd.load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


@pytest.mark.parametrize("text", [*HOSTILE, "the {} set"])
def test_hostile_text_stays_data(tmp_path: Path, text: str) -> None:
    record = changed(changed(REVERSE, "edits.0.subject.label", text), "edits.1.new_object.label", text)
    first, second = ckd.load(written(tmp_path, [record]))
    assert first.text() == f"The work of {text} is"
    assert first.paraphrases == (f"Who is the work of {text}?",)
    assert second.portability == (Probe(f"The work of {text} is", "Bridge"),)
