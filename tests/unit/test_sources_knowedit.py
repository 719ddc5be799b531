import logging
from pathlib import Path
from typing import Any

import pytest

from collateral.data.facts import Fact, Probe
from collateral.data.loaders import knowedit
from sourcefiles import HOSTILE, changed, refusal, written

RECENT: dict[str, Any] = {
    "subject": "Ada Brook",
    "prompt": "The town of Ada Brook is",
    "target_new": "Sandley",
    "portability": {
        "Logical_Generalization": [
            {"prompt": "Does Ada Brook live by the sea?", "ground_truth": [["yes"], ["correct"], ["true"]]}
        ],
        "Reasoning": [
            {"prompt": "The mayor of the town of Ada Brook is", "ground_truth": [["Ivy Moss", "I. Moss"]]},
            {"prompt": "The river of the town of Ada Brook is", "ground_truth": [[]]},
        ],
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The father of Ada Brook is", "ground_truth": [["Tom Brook"]]},
            {"prompt": "The trade of Ada Brook is", "ground_truth": []},
        ]
    },
}
COUNTERFACT: dict[str, Any] = {
    **RECENT,
    "ground_truth": "Norfield",
    "portability": {
        "Subject_Aliasing": [{"prompt": "The town of Ada B. is", "ground_truth": "Sandley"}],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The gender of Ada Brook is", "ground_truth": "female"}],
        "Forgetfulness": [
            {"prompt": "The town of Ada Brook, which is not Sandley, is", "ground_truth": ["Norfield"]}
        ],
    },
}
ZSRE: dict[str, Any] = {
    "subject": "grey harbour light",
    "target_new": "Ada Brook",
    "prompt": "Who built Grey Harbour Light?",
    "ground_truth": ["Tom Weir", "Thomas Weir"],
    "rephrase_prompt": "Which engineer raised Grey Harbour Light?",
    "cond": "Tom Weir >> Ada Brook || Who built Grey Harbour Light?",
    "locality": {"Relation_Specificity": [{"prompt": "Grey Harbour Light height", "ground_truth": ["40 m"]}]},
    "portability": {"Reasoning": [{"prompt": "Where did its builder live?", "ground_truth": "Norfield"}]},
}
WIKIBIO: dict[str, Any] = {
    "text": "This is a passage about ada brook. Ada Brook was an engineer.",
    "labels": "She was born in Sandley.",
    "concept": "ada brook",
    "locality": {"Relation_Specificity": [{"prompt": "ada brook occupation", "ground_truth": ["engineer"]}]},
}


def test_a_recent_fact_has_no_old_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        facts = knowedit.load(written(tmp_path, [RECENT]))
    assert facts == [
        Fact(
            fact_id="knowedit-000000",
            subject="Ada Brook",
            relation="The town of {} is",
            prompt="The town of {} is",
            target_new="Sandley",
            target_true="",
            neighborhood=(Probe("The father of Ada Brook is", "Tom Brook"),),
            portability=(
                Probe("Does Ada Brook live by the sea?", "yes"),
                Probe("The mayor of the town of Ada Brook is", "Ivy Moss"),
            ),
            source="KnowEdit, records.json record 0",
        )
    ]
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "2 probes left out: they have no answer"
    ]


def test_a_counterfact_has_all_its_groups_of_probes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fact,) = knowedit.load(written(tmp_path, [COUNTERFACT]))
    assert (fact.target_new, fact.target_true, fact.true_aliases) == ("Sandley", "Norfield", ())
    assert fact.portability == (Probe("The town of Ada B. is", "Sandley"),)
    assert fact.neighborhood == (
        Probe("The gender of Ada Brook is", "female"),
        Probe("The town of Ada Brook, which is not Sandley, is", "Norfield"),
    )
    assert caplog.records == []


def test_a_zsre_question_keeps_the_spelling_of_its_prompt(tmp_path: Path) -> None:
    (fact,) = knowedit.load(written(tmp_path, [ZSRE]))
    assert (fact.subject, fact.prompt) == ("Grey Harbour Light", "Who built {}?")
    assert (fact.target_true, fact.true_aliases) == ("Tom Weir", ("Thomas Weir",))
    assert fact.paraphrases == ("Which engineer raised Grey Harbour Light?",)
    assert fact.question_type == "question"


def test_a_biography_continues_its_passage(tmp_path: Path) -> None:
    (fact,) = knowedit.load(written(tmp_path, [WIKIBIO]))
    assert fact.text() == WIKIBIO["text"]
    assert (fact.subject, fact.target_new) == ("ada brook", "She was born in Sandley.")
    assert fact.neighborhood == (Probe("ada brook occupation", "engineer"),)
    assert fact.question_type == "completion"


def test_records_that_cannot_be_edited_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = [
        changed(ZSRE, "subject", "Red Light"),
        changed(ZSRE, "target_new", " Thomas Weir"),
        changed(ZSRE, "target_new", " "),
        ZSRE,
    ]
    with caplog.at_level(logging.WARNING):
        facts = knowedit.load(written(tmp_path, asked))
    assert [fact.fact_id for fact in facts] == ["knowedit-000003"]
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "1 of 4 records left out: the subject does not stand in the prompt",
        "1 of 4 records left out: the target is among the true answers",
        "1 of 4 records left out: the target is empty",
    ]
    assert "every record is left out" in refusal(knowedit.load, written(tmp_path, asked[:1]))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("subject", ..., "field 'subject' is missing"),
        ("target_new", ["x"], "field 'target_new' is a list (['x']); text is needed"),
        ("ground_truth", [["x", 3]], "field 'ground_truth[0][1]' is a number (3); text is needed"),
        ("ground_truth", [[["x"]]], "field 'ground_truth[0][0]' is a list (['x']); text is needed"),
        ("locality", [], "field 'locality' is a list ([]); an object is needed"),
        ("locality.Relation_Specificity", "x", "field 'locality.Relation_Specificity' is text ('x')"),
        (
            "locality.Relation_Specificity.0.ground_truth",
            ...,
            "field 'locality.Relation_Specificity[0].ground_truth' is missing",
        ),
        ("portability.Reasoning.0.prompt", "", "field 'portability.Reasoning[0].prompt' is empty"),
        ("portability.Reasoning.0", 5, "field 'portability.Reasoning[0]' is a number (5); an object"),
        ("prompt", "Who {} built Grey Harbour Light?", "field 'prompt': the prompt"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, keys: str, value: object, said: str) -> None:
    path = written(tmp_path, [ZSRE, changed(ZSRE, keys, value)])
    message = refusal(knowedit.load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_data(tmp_path: Path, text: str) -> None:
    record = changed(changed(ZSRE, "subject", text), "prompt", f"Who built {text}?")
    (fact,) = knowedit.load(written(tmp_path, [changed(record, "target_new", text)]))
    assert fact.text() == f"Who built {text}?"
    assert fact.subject == fact.target_new == text
