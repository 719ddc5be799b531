"""20Q and PEP3k of MEMIT-CSK: statements of common sense that a model is taught to call true or false."""

import re
from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import PLACEHOLDER, Fact, Probe, first_records, template_from_text
from collateral.data.records import Record, read_records, refuse_repeated
from collateral.errors import CollateralError

ABOUT = About(
    title="20Q and PEP3k (probe sets of MEMIT-CSK)",
    licence="MIT",
    citation=(
        "Anshita Gupta, Debanjan Mondal, Akshay Krishna Sheshadri, Wenlong Zhao, Xiang Lorraine Li, Sarah"
        " Wiegreffe, Niket Tandon. Editing Common Sense in Transformers. EMNLP 2023; "
        "Ian Porada, Kaheer Suleman, Adam Trischler, Jackie Chi Kit Cheung. Modeling Event Plausibility "
        "with Consistent Conceptual Abstraction. NAACL 2021"
    ),
    home="https://github.com/anshitag/memit_csk",
)

LABELS = ("True", "False")
AFFECTED = ("affected_neighborhood_subject", "affected_neighborhood_verb", "affected_neighborhood_object")
UNAFFECTED = ("unaffected_neighborhood_subject", "unaffected_neighborhood_object")


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return the edit requests of a probe set, in file order; the whole file is checked, then cut to `limit`.

    As in the paper and its released code, every prompt is the bare statement with a colon (`Furnishings make noise:`)
    and the answer is the next word, `True` or `False`. The edit target is the `label`.

    generalization: `affected_paraphrase`, with the label. portability: `affected_neighborhood_*`, with the label, and
    `affected_reasoning`, with `True`: its sentences argue for the label, and the released evaluation holds them true.
    locality: `unaffected_neighborhood_*`. The file does not say which of these hold; the paper measures whether the
    model's answers stay what they were, which is this project's agreement with the unedited model.
    `predicted_label` and the flags of GPT-2 are other models' answers and are not read.

    Raises:
        CollateralError: a record is malformed, or an `id` stands twice; the message names file, record and field.
    """
    records = read_records(path)
    facts = [_fact(record) for record in records]
    refuse_repeated(records, "id")
    return first_records(facts, limit)


def _fact(record: Record) -> Fact:
    label = record.text("label")
    if label not in LABELS:
        raise CollateralError(
            f"{record.where('label')} is {label!r}; 'True' or 'False' is allowed, mend the record"
        )
    opposite = LABELS[label == LABELS[0]]
    subject = record.text("subject")
    affected = [
        Probe(_asked(text), label) for name in AFFECTED for text in record.texts(name, may_be_empty=True)
    ]
    reasons = [
        Probe(_asked(text), LABELS[0]) for text in record.texts("affected_reasoning", may_be_empty=True)
    ]
    return Fact(
        fact_id=f"commonsense-{record.number('id'):06d}",
        subject=subject,
        relation=f"{record.text('verb')} {record.text('object')}",
        prompt=_asked(_template(record, subject)),
        target_new=label,
        # ASSUME: these edits make a wrong model right, so that what is replaced is the opposite of the truth, as the
        # released code has it; `known_only` then keeps the statements that the unedited model gets wrong.
        target_true=opposite,
        paraphrases=tuple(_asked(text) for text in record.texts("affected_paraphrase", may_be_empty=True)),
        # ASSUME: their right answers are not given. Which word stands here does not matter for the agreement with the
        # unedited model; with the label that is not edited in, `prefers_target` says that the edit did not leak.
        neighborhood=tuple(
            Probe(_asked(text), opposite)
            for name in UNAFFECTED
            for text in record.texts(name, may_be_empty=True)
        ),
        portability=(*affected, *reasons),
        question_type="true-false",
        source=f"MEMIT-CSK, {record.source}",
    )


def _asked(statement: str) -> str:
    return f"{statement}:"


def _template(record: Record, subject: str) -> str:
    """Return the statement with `{}` for the subject: where it stands as a word, else its first occurrence."""
    statement = record.text("prompt")
    word = re.search(rf"\b{re.escape(subject)}\b", statement)
    if word and PLACEHOLDER not in statement:
        return f"{statement[: word.start()]}{PLACEHOLDER}{statement[word.end() :]}"
    return template_from_text(statement, subject, record.where("prompt"))
