import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collateral.data import records
from collateral.data.facts import Fact, Probe
from collateral.data.loaders import counterfact, zsre
from sourcefiles import changed, refusal, shared, written

QUESTION: dict[str, Any] = {
    "subject": "Grey Harbour Light",
    "src": "Who built Grey Harbour Light?",
    "pred": "nobody",
    "rephrase": "Which engineer raised Grey Harbour Light?",
    "alt": " Ada Brook",
    "answers": ["Tom Weir", "Thomas Weir"],
    "loc": "nq question: how tall is an oak",
    "loc_ans": "twenty metres",
    "cond": "Tom Weir >> Ada Brook",
    "portability": {
        "Recalled Relation": "(Ada Brook, home, Norfield)",
        "New Question": "Where did the builder of Grey Harbour Light live?",
        "New Answer": "Norfield",
    },
}
NESTED: dict[str, Any] = {
    "case_id": 7,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "The harbour of {} lies in",
        "relation_id": "P17",
        "target_new": {"str": "Peru", "id": "Q2"},
        "target_true": {"str": "Wales", "id": "Q3"},
        "subject": "Grey Harbour",
    },
    "paraphrase_prompts": ["A boat came in. Grey Harbour is in", "Grey Harbour can be found in"],
    "neighborhood_prompts": ["Blue Harbour lies in", "Old Pier lies in"],
    "attribute_prompts": ["Lima lies in"],
    "generation_prompts": ["Near Grey Harbour"],
}
FLAT: dict[str, Any] = {
    "case_id": 9,
    "prompt": "The harbour of Grey Harbour, in",
    "subject": "Grey Harbour",
    "target_new": "Peru",
    "ground_truth": "Wales",
    "rephrase_prompt": "Grey Harbour belongs to",
    "locality_prompt": "Blue Harbour, in",
    "locality_ground_truth": "Wales",
}


def test_a_zsre_record_becomes_a_question(tmp_path: Path) -> None:
    assert zsre.load(written(tmp_path, [QUESTION])) == [
        Fact(
            fact_id="zsre-000000",
            subject="Grey Harbour Light",
            relation="",
            prompt="Who built {}?",
            target_new="Ada Brook",
            target_true="Tom Weir",
            true_aliases=("Thomas Weir",),
            paraphrases=("Which engineer raised Grey Harbour Light?",),
            neighborhood=(Probe("how tall is an oak?", "twenty metres"),),
            portability=(Probe("Where did the builder of Grey Harbour Light live?", "Norfield"),),
            question_type="question",
            source="zsRE, records.json record 0",
        )
    ]


def test_the_training_form_of_zsre_has_no_portability(tmp_path: Path) -> None:
    (fact,) = zsre.load(written(tmp_path, [changed(QUESTION, "portability", ...)]))
    assert fact.portability == ()
    assert fact.target_new == "Ada Brook"


def test_zsre_records_that_ask_for_no_change_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [changed(QUESTION, "alt", text) for text in ("Tom Weir", " Thomas Weir ", "", "Ada Brook")]
    with caplog.at_level(logging.WARNING):
        facts = zsre.load(written(tmp_path, asked))
    assert [fact.fact_id for fact in facts] == ["zsre-000003"]
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "2 of 4 records left out: 'alt' is among the true answers",
        "1 of 4 records left out: 'alt' is empty",
    ]


def test_a_clean_zsre_file_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    zsre.load(written(tmp_path, [QUESTION]))
    assert caplog.records == []


def test_a_nested_counterfact_record_becomes_a_completion(tmp_path: Path) -> None:
    assert counterfact.load(written(tmp_path, [NESTED])) == [
        Fact(
            fact_id="counterfact-000007",
            subject="Grey Harbour",
            relation="P17",
            prompt="The harbour of {} lies in",
            target_new="Peru",
            target_true="Wales",
            paraphrases=("A boat came in. Grey Harbour is in", "Grey Harbour can be found in"),
            neighborhood=(Probe("Blue Harbour lies in", "Wales"), Probe("Old Pier lies in", "Wales")),
            source="CounterFact, records.json record 0",
        )
    ]


def test_a_flat_counterfact_record_becomes_a_completion(tmp_path: Path) -> None:
    assert counterfact.load(written(tmp_path, [FLAT])) == [
        Fact(
            fact_id="counterfact-000009",
            subject="Grey Harbour",
            relation="",
            prompt="The harbour of {}, in",
            target_new="Peru",
            target_true="Wales",
            paraphrases=("Grey Harbour belongs to",),
            neighborhood=(Probe("Blue Harbour, in", "Wales"),),
            source="CounterFact (flat), records.json record 0",
        )
    ]


@pytest.mark.parametrize(("load", "record"), [(zsre.load, QUESTION), (counterfact.load, FLAT)])
def test_a_limit_keeps_the_first_facts(
    tmp_path: Path, load: Callable[..., list[Fact]], record: dict[str, Any]
) -> None:
    path = written(tmp_path, [changed(record, "case_id", number) for number in range(3)])
    assert load(path, limit=2) == load(path)[:2]
    assert len(load(path)) == 3


@pytest.mark.parametrize(
    ("load", "record", "keys", "value", "said"),
    [
        (zsre.load, QUESTION, "subject", ..., "field 'subject' is missing"),
        (zsre.load, QUESTION, "subject", " ", "field 'subject' is empty"),
        (
            zsre.load,
            QUESTION,
            "subject",
            "Red Harbour",
            "field 'src': the subject 'Red Harbour' does not stand",
        ),
        (zsre.load, QUESTION, "src", "Who built {} Grey Harbour Light?", "field 'src': the prompt"),
        (zsre.load, QUESTION, "alt", 7, "field 'alt' is a number (7); text is needed"),
        (zsre.load, QUESTION, "alt", None, "field 'alt' is null (None); text is needed"),
        (zsre.load, QUESTION, "answers", "Tom", "field 'answers' is text ('Tom'); a list of texts is needed"),
        (zsre.load, QUESTION, "answers", [], "field 'answers' is an empty list"),
        (zsre.load, QUESTION, "answers", ["Tom", False], "field 'answers[1]' is true or false (False)"),
        (zsre.load, QUESTION, "answers", ["Tom", ""], "field 'answers[1]' is empty"),
        (zsre.load, QUESTION, "loc_ans", {}, "field 'loc_ans' is an object ({}); text is needed"),
        (zsre.load, QUESTION, "portability", ..., "field 'portability' is missing"),
        (zsre.load, QUESTION, "portability", [], "field 'portability' is a list ([]); an object is needed"),
        (zsre.load, QUESTION, "portability.New Answer", ..., "field 'portability.New Answer' is missing"),
        (counterfact.load, NESTED, "case_id", "7", "field 'case_id' is text ('7'); a whole number is needed"),
        (counterfact.load, NESTED, "case_id", True, "field 'case_id' is true or false (True)"),
        (counterfact.load, NESTED, "case_id", 1, "field 'case_id' is 1, as in record 0"),
        (counterfact.load, NESTED, "requested_rewrite", ..., "field 'requested_rewrite' is missing"),
        (counterfact.load, NESTED, "requested_rewrite", [{}], "field 'requested_rewrite' is a list ([{}])"),
        (
            counterfact.load,
            NESTED,
            "requested_rewrite.prompt",
            "It lies in",
            "field 'requested_rewrite.prompt' is",
        ),
        (counterfact.load, NESTED, "requested_rewrite.prompt", "{} and {}", "exactly one '{}' is needed"),
        (
            counterfact.load,
            NESTED,
            "requested_rewrite.subject",
            "",
            "field 'requested_rewrite.subject' is empty",
        ),
        (
            counterfact.load,
            NESTED,
            "requested_rewrite.target_new.str",
            ...,
            "field 'requested_rewrite.target_new.str' is missing (there: id)",
        ),
        (
            counterfact.load,
            NESTED,
            "neighborhood_prompts",
            [1],
            "field 'neighborhood_prompts[0]' is a number (1)",
        ),
        (counterfact.load, FLAT, "locality_prompt", ..., "field 'locality_prompt' is missing"),
        (
            counterfact.load,
            FLAT,
            "subject",
            "grey harbour",
            "field 'prompt': the subject 'grey harbour' does not",
        ),
    ],
)
def test_a_malformed_record_is_named(
    tmp_path: Path,
    load: Callable[[Path], list[Fact]],
    record: dict[str, Any],
    keys: str,
    value: object,
    said: str,
) -> None:
    first = changed(record, "case_id", 1)
    path = written(tmp_path, [first, changed(record, keys, value)])
    message = refusal(load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


def test_an_edit_to_the_truth_is_refused_with_its_record(tmp_path: Path) -> None:
    message = refusal(counterfact.load, written(tmp_path, [changed(FLAT, "target_new", "Wales")]))
    assert "records.json record 0" in message
    assert "target_new 'Wales' is already true" in message


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    assert "not a CounterFact file" in refusal(counterfact.load, written(tmp_path, [QUESTION]))
    assert "field 'alt' is missing" in refusal(zsre.load, written(tmp_path, [FLAT]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable as JSON"),
        (b'[{"subject": "cut of', "not readable as JSON"),
        (b"\xff\xfe[]", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "a JSON list of one or more records"),
        (b'{"subject": "x"}', "a JSON list of one or more records"),
        (b'[{}, "x"]', "record 1 is 'x'; an object"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(content)
    message = refusal(zsre.load, path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "file not found" in refusal(zsre.load, tmp_path / "absent.json")


def test_a_file_above_512_mib_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    with path.open("wb") as handle:
        handle.truncate(512 * 1024 * 1024 + 1)  # a sparse file takes no room
    assert "536870913 bytes, at most 536870912 (512 MiB)" in refusal(zsre.load, path)
    assert records.MAX_BYTES == 536870912


@pytest.mark.parametrize(
    ("name", "kept", "true", "empty", "with_portability"),
    [
        ("zsre_mend_eval_portability_gpt4.json", 1008, 29, 0, True),
        ("zsre_mend_train-1k.json", 977, 21, 2, False),
    ],
)
def test_the_public_zsre_files(
    caplog: pytest.LogCaptureFixture, name: str, kept: int, true: int, empty: int, with_portability: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        facts = zsre.load(shared(name))
    assert len(facts) == kept
    counts = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert counts == [count for count in (true, empty) if count]
    for fact in facts:
        assert len(fact.paraphrases) == len(fact.neighborhood) == 1
        assert len(fact.portability) == with_portability
        assert fact.neighborhood[0].prompt.endswith("?")
        assert not fact.neighborhood[0].prompt.startswith("nq question")
        start, end = fact.subject_span()
        assert fact.text()[start:end] == fact.subject


def test_the_first_public_zsre_record() -> None:
    fact = zsre.load(shared("zsre_mend_eval_portability_gpt4.json"), limit=1)[0]
    assert (fact.prompt, fact.target_new) == ("When was the inception of {}?", "2006")
    assert (fact.target_true, fact.true_aliases) == ("1998", ())
    assert fact.portability[0].target == "Athletics"


def test_the_public_counterfact_files() -> None:
    nested = counterfact.load(shared("counterfact_500.json"))
    assert len(nested) == 500
    assert {(len(fact.paraphrases), len(fact.neighborhood)) for fact in nested} == {(2, 10)}
    assert nested[0].fact_id == "counterfact-020952"
    assert (nested[0].subject, nested[0].relation) == ("Angola", "P30")
    assert (nested[0].target_new, nested[0].target_true) == ("Antarctica", "Africa")
    assert {probe.target for probe in nested[0].neighborhood} == {"Africa"}
    flat = counterfact.load(shared("counterfact-val.json"))
    assert len(flat) == 1919
    assert (flat[0].fact_id, flat[0].prompt) == ("counterfact-000010", "{}, by")
    assert flat[0].neighborhood[0].target == "BBC"
