"""KnowEdit: WikiData recent and counterfact, ZsRE and WikiBio in the forms of its JSON files."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import Fact, Probe, first_records, template_from_text
from collateral.data.records import Record, log_left_out, read_records
from collateral.errors import CollateralError

ABOUT = About(
    title="KnowEdit (WikiData recent and counterfact, ZsRE, WikiBio)",
    licence="MIT, as the data card of zjunlp/KnowEdit states; its parts have terms of their own",
    citation=(
        "Ningyu Zhang, Yunzhi Yao, Bozhong Tian, Peng Wang, Shumin Deng and others. A Comprehensive Study"
        " of Knowledge Editing for Large Language Models. arXiv 2401.01286, 2024"
    ),
    home="https://github.com/zjunlp/EasyEdit/blob/main/examples/KnowEdit.md",
    probes=6,
)

log = logging.getLogger(__name__)

NO_SUBJECT = "the subject does not stand in the prompt"
NO_TARGET = "the target is empty"
ALREADY_TRUE = "the target is among the true answers"


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return the edit requests of one KnowEdit file, in file order; the whole file is checked, then cut to `limit`.

    Subject, prompt and target are `subject`, `prompt`, `target_new`, or in WikiBio `concept`, `text`, `labels`.
    `ground_truth`, where there is one, may be a text, a list, or a list of lists of aliases: the first text is the
    true answer, the others are aliases. `rephrase_prompt` or `rephrase` is the paraphrase. All groups of
    `portability` and `locality` are read, in file order, each probe with the first of its answers. The subject is
    taken in the letter case that it has in the prompt. `cond` is not read. The recent facts have no `ground_truth`:
    for them `known_only` must be off.

    Records whose subject does not stand in the prompt, whose target is empty or is already true, and probes without
    an answer, are left out, and their numbers are logged.

    Raises:
        CollateralError: a record is malformed, or none is left; the message names file, record and field.
    """
    records = read_records(path)
    left_out: Counter[str] = Counter()
    unanswered = 0
    facts: list[Fact] = []
    for record in records:
        read = _fact(record)
        if isinstance(read, str):
            left_out[read] += 1
            continue
        fact, missing = read
        unanswered += missing
        facts.append(fact)
    log_left_out(path, len(records), left_out)
    if unanswered:
        log.warning("%s: %d probes left out: they have no answer", path, unanswered)
    if not facts:
        raise CollateralError(f"{path}: every record is left out; check that this is a KnowEdit file")
    return first_records(facts, limit)


def _fact(record: Record) -> tuple[Fact, int] | str:
    """Return the fact and its number of probes without an answer, or why the record is left out."""
    subject, text, target = _request(record)
    true = record.answers("ground_truth") if record.values.get("ground_truth") is not None else ()
    portability, locality = list(_probes(record, "portability")), list(_probes(record, "locality"))
    found = re.search(re.escape(subject), text, re.IGNORECASE)
    if not found:
        return NO_SUBJECT
    if not target:
        return NO_TARGET
    if target in true:
        return ALREADY_TRUE
    prompt = template_from_text(text, found.group(), record.where("prompt"))
    fact = Fact(
        fact_id=f"knowedit-{record.index:06d}",
        subject=found.group(),
        # ASSUME: KnowEdit names no relation; its prompts are worded by relation, so that equal wordings about one
        # subject ask the same. Two wordings of one relation are taken for two relations.
        relation=prompt,
        prompt=prompt,
        target_new=target,
        target_true=true[0] if true else "",
        true_aliases=true[1:],
        paraphrases=_paraphrases(record),
        neighborhood=tuple(probe for probe in locality if probe),
        portability=tuple(probe for probe in portability if probe),
        question_type="question" if prompt.endswith("?") else "completion",
        source=f"KnowEdit, {record.source}",
    )
    return fact, locality.count(None) + portability.count(None)


def _request(record: Record) -> tuple[str, str, str]:
    if "concept" in record:
        return record.text("concept"), record.text("text"), record.text("labels", may_be_empty=True)
    return record.text("subject"), record.text("prompt"), record.text("target_new", may_be_empty=True)


def _paraphrases(record: Record) -> tuple[str, ...]:
    return tuple(
        text
        for name in ("rephrase_prompt", "rephrase")
        if record.values.get(name) is not None
        for text in record.answers(name)
    )


def _probes(record: Record, name: str) -> Iterator[Probe | None]:
    """Yield the probes of all groups of a field that may be absent; None for one without an answer."""
    if record.values.get(name) is None:
        return
    groups = record.record(name)
    for group in groups.values:
        for asked in groups.records(group, may_be_empty=True):
            prompts, answers = asked.answers("prompt"), asked.answers("ground_truth")
            if not prompts:
                raise CollateralError(f"{asked.where('prompt')} is empty; fill it or remove the probe")
            yield Probe(prompts[0], answers[0]) if answers else None
