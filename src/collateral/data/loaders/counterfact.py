"""CounterFact, in the original nested form and in the flat form with one locality prompt."""

from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import Fact, Probe, template_from_text
from collateral.data.records import Record, read_records, refuse_repeated
from collateral.errors import CollateralError

ABOUT = About(
    title="CounterFact (original and flat form)",
    licence="MIT, with the code of ROME",
    citation=(
        "Kevin Meng, David Bau, Alex Andonian, Yonatan Belinkov. Locating and Editing Factual "
        "Associations in GPT. NeurIPS 2022"
    ),
    home="https://rome.baulab.info",
    probes=13,
)


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return the edit requests of a CounterFact file, in file order; the whole file is checked, then cut to `limit`.

    A file whose first record has `requested_rewrite` is in the original form: the prompt is a template already, and
    the right answer to each neighborhood prompt is `target_true`. `attribute_prompts` and `generation_prompts` are
    not read. A file whose first record has `ground_truth` is in the flat form, which names no relation.

    Raises:
        CollateralError: the form is neither, a record is malformed, or a `case_id` stands twice; the message names
            file, record and field.
    """
    records = read_records(path)
    if "requested_rewrite" in records[0]:
        facts = [_original(record) for record in records]
    elif "ground_truth" in records[0]:
        facts = [_flat(record) for record in records]
    else:
        raise CollateralError(
            f"{path}: record 0 has neither 'requested_rewrite' nor 'ground_truth'; this is not a CounterFact file, "
            "choose another loader"
        )
    refuse_repeated(records, "case_id")
    return facts[:limit]


def _original(record: Record) -> Fact:
    request = record.record("requested_rewrite")
    target_true = request.record("target_true").text("str")
    return Fact(
        fact_id=_fact_id(record),
        subject=request.text("subject"),
        relation=request.text("relation_id"),
        prompt=request.template("prompt"),
        target_new=request.record("target_new").text("str"),
        target_true=target_true,
        paraphrases=record.texts("paraphrase_prompts"),
        neighborhood=tuple(Probe(text, target_true) for text in record.texts("neighborhood_prompts")),
        source=f"CounterFact, {record.source}",
    )


def _flat(record: Record) -> Fact:
    subject = record.text("subject")
    return Fact(
        fact_id=_fact_id(record),
        subject=subject,
        relation="",
        prompt=template_from_text(record.text("prompt"), subject, record.where("prompt")),
        target_new=record.text("target_new"),
        target_true=record.text("ground_truth"),
        paraphrases=(record.text("rephrase_prompt"),),
        neighborhood=(Probe(record.text("locality_prompt"), record.text("locality_ground_truth")),),
        source=f"CounterFact (flat), {record.source}",
    )


def _fact_id(record: Record) -> str:
    return f"counterfact-{record.number('case_id'):06d}"
