"""CKD, read as ConflictEdit: pairs of edits of which the second contradicts what the first made true."""

from collections import Counter
from pathlib import Path

from collateral.data.about import About
from collateral.data.facts import PLACEHOLDER, Fact, Probe, first_records
from collateral.data.records import Record, log_left_out, read_records
from collateral.errors import CollateralError

ABOUT = About(
    title="ConflictEdit (coverage, reverse and composite edits), taken for CKD",
    licence="unclear: no licence file was found in its repository",
    citation=(
        "Zhoubo Li, Ningyu Zhang, Yunzhi Yao, Mengru Wang, Xi Chen, Huajun Chen. Unveiling the Pitfalls "
        "of Knowledge Editing for Large Language Models. ICLR 2024"
    ),
    home="https://github.com/zjunlp/PitfallsKnowledgeEditing",
)

# ASSUME: CKD is ConflictEdit; `load` says what speaks for it and against it
KINDS = ("coverage", "reverse", "composite")


def load(path: Path, limit: int | None = None) -> list[Fact]:
    """Return one case per pair of edits, in file order; the whole file is checked, then cut to `limit` cases.

    That CKD is this set is not certain. The D4S paper edits zsRE, ELKEN, 20Q and CKD, and nothing public that was
    found spells the last name out. Read as conflicting knowledge it is ConflictEdit, whose files are public and whose
    schema is read here. It could also be commonsense knowledge: D4S's first author has a set of free-text commonsense
    edits (CKEBench, arXiv 2410.23844), of which no file was found in public. So numbers on these facts are not to be
    compared with the paper's numbers on CKD.

    Files: `coverage_edit.json` (the second edit gives the same fact a third object), `reverse_edit.json` (it takes
    the inverse relation elsewhere) and `composite_edit.json` (it changes what follows from the first and a tied
    fact). `edits` are the facts of a case, `query` is each one's paraphrase. portability, on the last fact, is what
    the authors ask after both edits: reverse, the first relation of the second edit's new object, with the second
    edit's subject as the answer; composite, the first edit's prompt with the second edit's new object. locality,
    there too: the tied facts (`prerequisites`). `rule` is not read.

    The old object of a second edit is often the first one's new object, which no unedited model knows: `known_only`
    keeps a case only if both are known and must be off. Cases in which an edit asks for its old object are left out,
    and their number is logged.

    Raises:
        CollateralError: a record is malformed, or none is left; the message names file, record and field.
    """
    records = read_records(path)
    left_out: Counter[str] = Counter()
    facts: list[Fact] = []
    for record in records:
        edits = record.records("edits")
        if any(_label(edit, "new_object") == _label(edit, "object") for edit in edits):
            left_out["an edit's new object is its old one"] += 1
        else:
            facts += _case(record, edits)
    log_left_out(path, len(records), left_out)
    if not facts:
        raise CollateralError(f"{path}: every record is left out; check that this is a ConflictEdit file")
    return first_records(facts, limit)


def _case(record: Record, edits: tuple[Record, ...]) -> list[Fact]:
    case_id = f"ckd-{record.index:06d}"
    portability, neighborhood = _conflict(record, edits), _tied(record)
    last = len(edits)
    return [
        Fact(
            fact_id=f"{case_id}-{place}",
            subject=_label(edit, "subject"),
            relation=edit.record("relation").text("id"),
            prompt=edit.record("relation").template("prompt"),
            target_new=_label(edit, "new_object"),
            target_true=_label(edit, "object"),
            paraphrases=(_filled(edit.record("relation").template("query"), _label(edit, "subject")),),
            neighborhood=neighborhood if place == last else (),
            portability=portability if place == last else (),
            source=f"ConflictEdit, {record.source}",
            case_id=case_id,
        )
        for place, edit in enumerate(edits, start=1)
    ]


def _conflict(record: Record, edits: tuple[Record, ...]) -> tuple[Probe, ...]:
    kind = record.text("type")
    if kind not in KINDS or len(edits) != 2:
        raise CollateralError(
            f"{record.where('type')} is {kind!r} with {len(edits)} edits; {', '.join(KINDS)} with 2 edits are "
            "allowed, take a file of ConflictEdit"
        )
    if kind == "coverage":
        return ()
    first, second = edits
    prompt = first.record("relation").template("prompt")
    if kind == "reverse":
        return (Probe(_filled(prompt, _label(second, "new_object")), _label(second, "subject")),)
    return (Probe(_filled(prompt, _label(first, "subject")), _label(second, "new_object")),)


def _tied(record: Record) -> tuple[Probe, ...]:
    triples = record.records("triples")
    found = []
    for place in record.numbers("prerequisites"):
        if not 0 <= place < len(triples):
            raise CollateralError(
                f"{record.where('prerequisites')} names triple {place}; 0 to {len(triples) - 1} are allowed, "
                "mend the record"
            )
        prompt = triples[place].record("relation").template("prompt")
        found.append(
            Probe(_filled(prompt, _label(triples[place], "subject")), _label(triples[place], "object"))
        )
    return tuple(found)


def _label(holder: Record, name: str) -> str:
    return holder.record(name).text("label")


def _filled(template: str, subject: str) -> str:
    return template.replace(PLACEHOLDER, subject, 1)
