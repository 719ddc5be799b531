"""The same facts asked in three ways: as a statement to judge, with four options, or directly."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from collateral.data.edit_order import derive_seed
from collateral.data.facts import Fact
from collateral.errors import CollateralError, unknown_name

TYPES = ("true-false", "multiple-choice", "direct")
LETTERS = ("A", "B", "C", "D")


def as_questions(facts: Sequence[Fact], question_type: str, seed: int) -> list[Fact]:
    """Return the facts, in order and with their ids, asked as one of the three types of MQD.

    MQD, the Multi-Question Dataset of the D4S paper, was not released. What is built here is its comparison: the same
    edits as true-or-false, multiple-choice and directly generated questions, paired by `fact_id`, so that the types
    differ in nothing else. Locality and portability probes stay as they are; a paraphrase is asked in the form of its
    fact; `question_type` says which form that is.

    true-false: the statement is the prompt with the new object; the edit target is `true` against `false`. So every
    target is the same word, and an edit that only makes the model say `true` succeeds: read this type's reliability
    next to its locality.

    multiple-choice: options A to D are the new object, the old one where the source gives it, and distractors:
    answers of other facts of the same relation, or of any relation where that one has too few, never those of facts
    about the same subject. The edit target is the letter of the new object against the letter of the old one.

    direct: the fact as it is.

    Distractors and the order of the options depend on the seed, the fact and the answers in the list, not on the
    list's order. A fact added to the list changes the distractors of another only where one of its answers falls
    nearer to that fact than those drawn before, or where it gives a relation enough answers.

    Args:
        facts: any data set.
        question_type: `true-false`, `multiple-choice` or `direct`.
        seed: of the study.

    Raises:
        CollateralError: no such type; or, for multiple-choice, a fact for which the list has too few other answers: a
            question with fewer options would be another type of question.
    """
    if question_type not in TYPES:
        raise unknown_name("question type", question_type, TYPES)
    if question_type == "true-false":
        return [_true_false(fact) for fact in facts]
    if question_type == "multiple-choice":
        pools = _pools(facts, seed)
        return [_multiple_choice(fact, pools, seed) for fact in facts]
    return [replace(fact, question_type=question_type) for fact in facts]


def in_form(facts: Sequence[Fact], form: str) -> list[Fact]:
    """Return the facts as they are (`as-is`), or as one of MQD's types, drawn with one seed for all studies."""
    return list(facts) if form == "as-is" else as_questions(facts, form, seed=0)


def _true_false(fact: Fact) -> Fact:
    # ASSUME: the wording of this and of the multiple-choice question is this project's; the paper's is not public
    end = f" {fact.target_new}. True or false? Answer:"
    return _asked(fact, end, "true-false", "true", "false")


def _multiple_choice(fact: Fact, pools: Mapping[str | None, "_Ring"], seed: int) -> Fact:
    options = [text for text in (fact.target_new, fact.target_true) if text]
    options += _distractors(fact, pools, seed, len(LETTERS) - len(options))
    options.sort(key=lambda text: (derive_seed("mqd options", seed, fact.fact_id, text), text))
    letter = dict(zip(options, LETTERS, strict=True))
    # An answer with line breaks could pose as further options, so that each option is written on one line.
    lines = [f"{name}. {' '.join(text.split())}" for text, name in letter.items()]
    end = "\n" + "\n".join(lines) + "\nAnswer:"
    # ASSUME: the target is the letter, not the option's text: one token, as a grader of such a test reads it
    return _asked(fact, end, "multiple-choice", letter[fact.target_new], letter.get(fact.target_true, ""))


def _asked(fact: Fact, end: str, question_type: str, new: str, true: str) -> Fact:
    return replace(
        fact,
        prompt=fact.prompt + end,
        paraphrases=tuple(text + end for text in fact.paraphrases),
        target_new=new,
        target_true=true,
        true_aliases=(),
        question_type=question_type,
    )


@dataclass(frozen=True)
class _Ring:
    """Answers around a circle, each at a place that is a hash of itself; a fact draws those after its own place.

    Attributes:
        places: in ascending order.
        answers: at these places.
        subjects: whose facts have that answer, new or old.
    """

    places: tuple[int, ...]
    answers: tuple[str, ...]
    subjects: tuple[frozenset[str], ...]

    def after(self, place: int) -> Iterable[tuple[str, frozenset[str]]]:
        start = bisect.bisect(self.places, place)
        for step in range(len(self.places)):
            number = (start + step) % len(self.places)
            yield self.answers[number], self.subjects[number]


def _pools(facts: Iterable[Fact], seed: int) -> dict[str | None, _Ring]:
    """Return the answers of each named relation, and at None those of all facts."""
    found: dict[str | None, dict[str, set[str]]] = {None: {}}
    for fact in facts:
        for relation in {None, fact.relation or None}:
            for answer in filter(None, (fact.target_new, fact.target_true)):
                pool = found.setdefault(relation, {})
                pool.setdefault(answer, set()).add(fact.subject.casefold())
    return {relation: _ring(pool, seed) for relation, pool in found.items()}


def _ring(pool: Mapping[str, set[str]], seed: int) -> _Ring:
    placed = sorted((derive_seed("mqd answer", seed, answer), answer) for answer in pool)
    return _Ring(
        tuple(place for place, _ in placed),
        tuple(answer for _, answer in placed),
        tuple(frozenset(pool[answer]) for _, answer in placed),
    )


def _distractors(fact: Fact, pools: Mapping[str | None, _Ring], seed: int, count: int) -> list[str]:
    taken = {text.casefold() for text in (fact.target_new, fact.target_true, *fact.true_aliases)}
    place = derive_seed("mqd fact", seed, fact.fact_id)
    found: list[str] = []
    for relation in (fact.relation or None, None):
        for answer, subjects in pools[relation].after(place):
            if len(found) == count:
                return found
            # the answer of another fact about the same subject may be a right answer to this question too
            if answer.casefold() not in taken and fact.subject.casefold() not in subjects:
                found.append(answer)
                taken.add(answer.casefold())
    if len(found) == count:
        return found
    raise CollateralError(
        f"fact '{fact.fact_id}' ({fact.source}): field 'target_new': a multiple-choice question needs {count} "
        f"answers of other subjects' facts, the list has {len(found)}; give a list with more facts"
    )
