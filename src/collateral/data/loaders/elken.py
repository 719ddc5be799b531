"""ELKEN: events, with what they make true, what they make likely, and what they leave as it was."""

import re
from collections import Counter
from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import Fact, Probe, first_records, template_from_text
from collateral.data.records import Record, log_left_out, read_records
from collateral.errors import CollateralError

ABOUT = About(
    title="ELKEN (events)",
    licence="unclear: no licence file was found in its repository",
    citation=(
        "Hao Peng, Xiaozhi Wang, Chunyang Li, Kaisheng Zeng, Jiangshan Duo, Yixin Cao, Lei Hou, Juanzi "
        "Li. Event-level Knowledge Editing. arXiv 2402.13093, 2024"
    ),
    home="https://github.com/THU-KEG/Event-Level-Knowledge-Editing",
)

DIRECT, DERIVED = 0, 1
LETTERS = ("A", "B", "C")
UNKNOWN = "unknown"


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return one case per event: a fact for each thing that the event itself says, in file order.

    The schema is that of `data/original/*.json` in the authors' repository: `event`, and under `fact` and `tendency`
    the lists `qas` and `local_qas`. Questions have the form of their evaluation, `Question: … Answer:`, for
    tendencies with the options and a letter as the answer.

    facts: `fact.qas` of type 0, which the event answers by itself. portability, on the case's last fact: `fact.qas`
    of type 1, which need other knowledge too, and `tendency.qas`. locality, there too: `fact.local_qas` and
    `tendency.local_qas`. The event's type and, where it has one, its `subject` are not read.

    The paper edits the text of an event into a model, by fine-tuning or in the context. An editor that needs a
    subject and a target cannot take a sentence: here the facts that it states are edited, together, as one case.

    Questions whose answer after the event is `unknown` ask a model to say that it does not know: they are left out,
    as are questions that do not name their subject, and events of which no fact is left (many have tendencies only).
    Their numbers are logged. The file does not say what held before an event: `target_true` is empty, so that no
    fact counts as known and `known_only` must be off.

    Raises:
        CollateralError: a record is malformed, or no event is left; the message names file, record and field.
    """
    records = read_records(path)
    counts: Counter[str] = Counter()
    cases = [_case(record, counts) for record in records]
    log_left_out(path, counts.pop("questions", 0), counts, "factual questions")
    empty = {"no fact that can be edited": sum(not case for case in cases)}
    log_left_out(path, len(records), empty, "events")
    facts = [fact for case in cases for fact in case]
    if not facts:
        raise CollateralError(
            f"{path}: no event states a fact that can be edited; take another file of ELKEN"
        )
    return first_records(facts, limit)


# DIFFERS: the facts that an event states are edited, not the event's text; `load` says why
def _case(record: Record, counts: Counter[str]) -> list[Fact]:
    record.text("event")
    case_id = f"elken-{record.index:06d}"
    facts, tendency = record.record("fact"), record.record("tendency")
    derived: list[Probe] = []
    edits: list[Record] = []
    for asked in facts.records("qas", may_be_empty=True):
        counts["questions"] += 1
        kind, probe = _kind(asked), _factual(asked)
        if probe.target.casefold() == UNKNOWN:
            counts["the answer is 'unknown'"] += 1
        elif kind == DERIVED:
            derived.append(probe)
        elif asked.record("subject").text("name") not in asked.text("question"):
            counts["the question does not name its subject"] += 1
        else:
            edits.append(asked)
    likely = [_tendency(asked) for asked in tendency.records("qas", may_be_empty=True)]
    local = [_factual(asked) for asked in facts.records("local_qas", may_be_empty=True)]
    local += [_tendency(asked) for asked in tendency.records("local_qas", may_be_empty=True)]
    last = len(edits)
    return [
        _fact(
            asked,
            f"{case_id}-{place}",
            case_id,
            neighborhood=tuple(local) if place == last else (),
            portability=(*derived, *likely) if place == last else (),
        )
        for place, asked in enumerate(edits, start=1)
    ]


def _fact(
    asked: Record, fact_id: str, case_id: str, neighborhood: tuple[Probe, ...], portability: tuple[Probe, ...]
) -> Fact:
    subject = asked.record("subject").text("name")
    question = template_from_text(asked.text("question"), subject, asked.where("question"))
    return Fact(
        fact_id=fact_id,
        subject=subject,
        relation=asked.text("rel_id"),
        prompt=_asked(question),
        target_new=asked.record("answer").text("name"),
        target_true="",
        neighborhood=neighborhood,
        portability=portability,
        question_type="question",
        source=f"ELKEN, {asked.source}",
        case_id=case_id,
    )


def _kind(asked: Record) -> int:
    kind = asked.number("type")
    if kind not in (DIRECT, DERIVED):
        raise CollateralError(
            f"{asked.where('type')} is {kind}; 0 (stated) or 1 (derived) is allowed, mend the record"
        )
    return kind


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _factual(asked: Record) -> Probe:
    return Probe(_asked(asked.text("question")), asked.record("answer").text("name"))


def _tendency(asked: Record) -> Probe:
    options, answer = asked.text("candidate"), asked.text("answer")
    named = tuple(re.findall(r"\(([A-Z])\)", options))
    if answer not in LETTERS or answer not in named:
        raise CollateralError(
            f"{asked.where('answer')} is {answer!r}; one of the letters A, B, C that 'candidate' offers is allowed, "
            "mend the record"
        )
    return Probe(_asked(f"{asked.text('question')}\n{options}"), answer)
