from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collateral.data.facts import Fact, Probe
from collateral.data.loaders import commonsense
from sourcefiles import HOSTILE, changed, refusal, shared, written

STATEMENT: dict[str, Any] = {
    "id": 5,
    "prompt": "Stones sing songs",
    "gpt2-xl_predicted_wrong": True,
    "gpt2-l_predicted_wrong": True,
    "label": " False",
    "subject": "Stones",
    "verb": "sing",
    "object": "songs",
    "neg": None,
    "prompt_polarity_grounded": "Stones do not sing songs",
    "affected_reasoning": ["Stones have no voice", "What has no voice sings no songs"],
    "unaffected_neighborhood_subject": ["Birds sing songs"],
    "unaffected_neighborhood_object": ["Stones sing rain", "Stones sing wind"],
    "affected_neighborhood_subject": ["Rocks sing songs"],
    "affected_neighborhood_verb": ["Stones chant songs"],
    "affected_neighborhood_object": ["Stones sing tunes", "Stones sing hymns"],
    "affected_paraphrase": ["Songs are sung by stones"],
    "predicted_label": "True",
}


def test_a_statement_becomes_an_edit_of_its_label(tmp_path: Path) -> None:
    assert commonsense.load(written(tmp_path, [STATEMENT])) == [
        Fact(
            fact_id="commonsense-000005",
            subject="Stones",
            relation="sing songs",
            prompt="{} sing songs:",
            target_new="False",
            target_true="True",
            paraphrases=("Songs are sung by stones:",),
            neighborhood=(
                Probe("Birds sing songs:", "True"),
                Probe("Stones sing rain:", "True"),
                Probe("Stones sing wind:", "True"),
            ),
            portability=(
                Probe("Rocks sing songs:", "False"),
                Probe("Stones chant songs:", "False"),
                Probe("Stones sing tunes:", "False"),
                Probe("Stones sing hymns:", "False"),
                Probe("Stones have no voice:", "True"),
                Probe("What has no voice sings no songs:", "True"),
            ),
            question_type="true-false",
            source="MEMIT-CSK, records.json record 0",
        )
    ]


def test_of_a_true_statement_the_reasons_are_true_too(tmp_path: Path) -> None:
    (fact,) = commonsense.load(written(tmp_path, [changed(STATEMENT, "label", " True")]))
    assert (fact.target_new, fact.target_true) == ("True", "False")
    assert {probe.target for probe in fact.portability} == {"True"}
    assert {probe.target for probe in fact.neighborhood} == {"False"}


@pytest.mark.parametrize(
    ("statement", "subject", "prompt"),
    [
        ("A caterpillar eats what a cat eats", "cat", "A caterpillar eats what a {} eats:"),
        ("Homeworks eat cats", "work", "Home{}s eat cats:"),
        ("a c++ (old) cat eats", "c++ (old)", "a {} cat eats:"),
    ],
)
def test_the_subject_is_a_word_where_it_is_one(
    tmp_path: Path, statement: str, subject: str, prompt: str
) -> None:
    record = changed(changed(STATEMENT, "prompt", statement), "subject", subject)
    (fact,) = commonsense.load(written(tmp_path, [record]))
    assert fact.prompt == prompt
    assert fact.text() == f"{statement}:"


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("label", "Maybe", "field 'label' is 'Maybe'; 'True' or 'False' is allowed"),
        ("label", True, "field 'label' is true or false (True); text is needed"),
        ("id", "5", "field 'id' is text ('5'); a whole number is needed"),
        ("id", 1, "field 'id' is 1, as in record 0"),
        ("subject", "Trees", "field 'prompt': the subject 'Trees' does not stand in the prompt"),
        ("prompt", "Stones sing {}", "field 'prompt': the prompt 'Stones sing {}' holds a literal '{}'"),
        ("affected_reasoning", "because", "field 'affected_reasoning' is text ('because'); a list of texts"),
        ("affected_neighborhood_verb", ["x", 3], "field 'affected_neighborhood_verb[1]' is a number (3)"),
        ("unaffected_neighborhood_object", ..., "field 'unaffected_neighborhood_object' is missing"),
    ],
)
def test_a_malformed_statement_is_named(tmp_path: Path, keys: str, value: object, said: str) -> None:
    path = written(tmp_path, [changed(STATEMENT, "id", 1), changed(STATEMENT, keys, value)])
    message = refusal(commonsense.load, path)
    assert message.startswith(f"{path}: record 1: ")
    assert said in message


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_data(tmp_path: Path, text: str) -> None:
    record = changed(changed(STATEMENT, "subject", text), "prompt", f"The {text} sings")
    record = changed(record, "affected_paraphrase", [text])
    (fact,) = commonsense.load(written(tmp_path, [record]))
    assert fact.text() == f"The {text} sings:"
    assert fact.paraphrases == (f"{text}:",)
    start, end = fact.subject_span()
    assert fact.text()[start:end] == text


def test_the_public_20q_probe_set() -> None:
    facts = commonsense.load(shared("20q_probe_set.json"))
    assert len(facts) == 379
    assert Counter(fact.target_new for fact in facts) == {"False": 212, "True": 167}
    assert sum(len(fact.paraphrases) for fact in facts) == 1895
    assert sum(len(fact.neighborhood) for fact in facts) == 1887 + 1895
    assert sum(len(fact.portability) for fact in facts) == 1852 + 1822 + 1839 + 750
    first = facts[0]
    assert (first.fact_id, first.text()) == ("commonsense-000001", "Furnishings make noise:")
    assert (first.target_new, first.target_true, first.relation) == ("False", "True", "make noise")
    assert first.neighborhood[0] == Probe("Animals make noise:", "True")
    assert first.portability[-1] == Probe("Inanimate objects cannot make noise:", "True")
    for fact in facts:
        start, end = fact.subject_span()
        assert fact.text()[start:end] == fact.subject
