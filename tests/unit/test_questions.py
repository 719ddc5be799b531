from dataclasses import replace

import pytest

from collateral.data.facts import Fact, Probe
from collateral.data.loaders import counterfact, zsre
from collateral.data.question_forms import LETTERS, as_questions
from collateral.errors import CollateralError
from sourcefiles import HOSTILE, shared

TOWNS = ["Arlow", "Brint", "Cask", "Dorn", "Elm", "Fenn", "Gorse", "Heath"]


def town(number: int, **changes: object) -> Fact:
    fact = Fact(
        fact_id=f"home-{number}",
        subject=f"Person {number}",
        relation="home",
        prompt="The home of {} is",
        target_new=TOWNS[number % 8],
        target_true=TOWNS[(number + 1) % 8],
        true_aliases=(f"old {TOWNS[(number + 1) % 8]}",),
        paraphrases=(f"Person {number} lives in",),
        neighborhood=(Probe("The home of Ann is", "Arlow"),),
        portability=(Probe(f"The county of Person {number} is", "Kent"),),
    )
    return replace(fact, **changes)


def options(fact: Fact) -> dict[str, str]:
    """Return the option behind each letter, read from the prompt as a reader would."""
    lines = fact.text().split("\n")
    assert lines[-1] == "Answer:"
    return dict(line.split(". ", 1) for line in lines[-5:-1])


def test_a_statement_with_the_new_object_is_to_be_judged_true() -> None:
    (fact,) = as_questions([town(0)], "true-false", 0)
    assert fact == replace(
        town(0),
        prompt="The home of {} is Arlow. True or false? Answer:",
        paraphrases=("Person 0 lives in Arlow. True or false? Answer:",),
        target_new="true",
        target_true="false",
        true_aliases=(),
        question_type="true-false",
    )
    assert fact.text() == "The home of Person 0 is Arlow. True or false? Answer:"


def test_a_direct_question_is_the_fact_as_it_is() -> None:
    assert as_questions([town(0)], "direct", 0) == [replace(town(0), question_type="direct")]


def test_options_hold_the_new_and_the_old_object_and_two_others() -> None:
    facts = [town(number) for number in range(8)]
    asked = as_questions(facts, "multiple-choice", 0)
    for fact, old in zip(asked, facts, strict=True):
        found = options(fact)
        assert tuple(found) == LETTERS
        assert found[fact.target_new] == old.target_new
        assert found[fact.target_true] == old.target_true
        assert len(set(found.values())) == 4
        assert set(found.values()) <= set(TOWNS)
        assert fact.paraphrases == (old.paraphrases[0] + fact.prompt.removeprefix(old.prompt),)
        assert (fact.neighborhood, fact.portability) == (old.neighborhood, old.portability)
        assert (fact.fact_id, fact.subject, fact.question_type) == (
            old.fact_id,
            old.subject,
            "multiple-choice",
        )
        start, end = fact.subject_span()
        assert fact.text()[start:end] == old.subject


def test_every_letter_is_the_target_about_equally_often() -> None:
    asked = as_questions([town(number) for number in range(400)], "multiple-choice", 0)
    counts = [sum(fact.target_new == letter for fact in asked) for letter in LETTERS]
    assert min(counts) > 70
    assert max(counts) < 130


def test_distractors_come_from_the_relation_before_any_other() -> None:
    others = [
        town(number, fact_id=f"x{number}", relation="work", target_new=f"job {number}")
        for number in range(50)
    ]
    facts = [town(number) for number in range(8)]
    for fact in as_questions([*others, *facts], "multiple-choice", 0)[50:]:
        assert set(options(fact).values()) <= set(TOWNS)
    lone = town(0, relation="birth")
    asked = as_questions([*others, lone], "multiple-choice", 0)[-1]
    assert {"Arlow", "Brint"} < set(options(asked).values())


def test_no_distractor_is_a_right_answer() -> None:
    fact = town(0, true_aliases=("CASK", "Dorn"))
    same_subject = town(3, subject="PERSON 0", target_new="Yarrow", target_true="Zeal")
    rest = [town(number, subject="Someone else") for number in range(1, 6)]
    for seed in range(30):
        found = options(as_questions([fact, same_subject, *rest], "multiple-choice", seed)[0])
        assert not {"Cask", "Dorn", "Yarrow", "Zeal"} & set(found.values())


def test_without_an_old_object_there_are_three_distractors() -> None:
    facts = [town(number) for number in range(6)] + [town(6, target_true="", true_aliases=())]
    asked = as_questions(facts, "multiple-choice", 0)[-1]
    assert asked.target_true == ""
    assert options(asked)[asked.target_new] == "Gorse"


def test_too_few_answers_are_an_error_that_names_the_fact() -> None:
    facts = [town(0), town(1)]
    with pytest.raises(
        CollateralError, match=r"fact 'home-0' .* needs 2 answers .* the list has 1;"
    ) as caught:
        as_questions(facts, "multiple-choice", 0)
    assert "\n" not in str(caught.value)
    assert len(as_questions(facts, "true-false", 0)) == 2


def test_an_unknown_type_names_the_valid_ones() -> None:
    with pytest.raises(CollateralError, match="did you mean 'true-false'"):
        as_questions([town(0)], "true-or-false", 0)


def test_the_draw_depends_on_seed_and_fact_not_on_the_order_of_the_list() -> None:
    facts = [town(number) for number in range(60)]
    by_id = {fact.fact_id: fact for fact in as_questions(facts, "multiple-choice", 0)}
    assert {fact.fact_id: fact for fact in as_questions(facts[::-1], "multiple-choice", 0)} == by_id
    other = as_questions(facts, "multiple-choice", 1)
    assert sum(by_id[fact.fact_id] != fact for fact in other) > 40


def test_a_longer_list_changes_few_questions() -> None:
    facts = [
        town(number, target_new=f"town {number}", target_true=f"village {number}") for number in range(101)
    ]
    shorter = as_questions(facts[:100], "multiple-choice", 0)
    longer = as_questions(facts, "multiple-choice", 0)[:100]
    assert sum(new != old for new, old in zip(longer, shorter, strict=True)) <= 8


@pytest.mark.parametrize("text", [*HOSTILE, "Cask\nB. Dorn", "the {} set"])
def test_hostile_answers_stay_options_of_one_line(text: str) -> None:
    facts = [town(number) for number in range(8)] + [town(9, target_new=text)]
    asked = as_questions(facts, "multiple-choice", 0)[-1]
    assert options(asked)[asked.target_new] == " ".join(text.split())
    (judged,) = as_questions(facts[-1:], "true-false", 0)
    assert judged.text() == f"The home of Person 9 is {text}. True or false? Answer:"


def test_the_public_files_can_be_asked_in_every_way() -> None:
    for load, name in (
        (counterfact.load, "counterfact_500.json"),
        (zsre.load, "zsre_mend_eval_portability_gpt4.json"),
    ):
        facts = load(shared(name))
        asked = as_questions(facts, "multiple-choice", 0)
        assert [fact.fact_id for fact in asked] == [fact.fact_id for fact in facts]
        for fact, old in zip(asked, facts, strict=True):
            assert options(fact)[fact.target_new] == old.target_new
            assert options(fact)[fact.target_true] == old.target_true
        assert {fact.target_new for fact in as_questions(facts, "true-false", 0)} == {"true"}
