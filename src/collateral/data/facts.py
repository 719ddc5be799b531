"""One record type for every data set of edit requests, and its parquet file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa

from collateral.errors import CollateralError
from collateral.io.atomic import whole_file
from collateral.io.parquet import read_arrow, write_sealed

PLACEHOLDER = "{}"

_PROBE = pa.struct([pa.field("prompt", pa.string(), False), pa.field("target", pa.string(), False)])
SCHEMA = pa.schema(
    [
        pa.field("fact_id", pa.string(), False),
        pa.field("subject", pa.string(), False),
        pa.field("relation", pa.string(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("target_new", pa.string(), False),
        pa.field("target_true", pa.string(), False),
        pa.field("true_aliases", pa.list_(pa.string()), False),
        pa.field("paraphrases", pa.list_(pa.string()), False),
        pa.field("neighborhood", pa.list_(_PROBE), False),
        pa.field("portability", pa.list_(_PROBE), False),
        pa.field("question_type", pa.string(), False),
        pa.field("source", pa.string(), False),
        pa.field("case_id", pa.string(), False),
    ]
)


@dataclass(frozen=True)
class Probe:
    """A prompt beside the fact, as plain text, and the answer that the world gives to it."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Fact:
    """One edit request: make the model complete `prompt` about `subject` with `target_new`.

    Attributes:
        fact_id: unique within the data set.
        subject: the entity, exactly as it stands in the filled prompt.
        relation: name or id of the relation; empty where the source gives none.
        prompt: the rewrite prompt with `{}` (first occurrence) in place of the subject.
        target_new: the edit target, without leading space.
        target_true: what the world says, without leading space; empty where the source gives none.
        true_aliases: further right answers.
        paraphrases: plain-text prompts that ask the same (generalization).
        neighborhood: prompts that must not change (locality), with their right answers.
        portability: prompts whose answer follows from the edit.
        question_type: `completion`, `question`, … as the source's form is.
        source: data set, file and record that this came from.
        case_id: shared by the facts of one case, which are edited one after another in the order of the data set and
            whose probes hold only when all are in; empty for a fact that stands alone.
    """

    fact_id: str
    subject: str
    relation: str
    prompt: str
    target_new: str
    target_true: str
    true_aliases: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    neighborhood: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    question_type: str = "completion"
    source: str = ""
    case_id: str = ""

    @property
    def unit(self) -> str:
        """Return what is ordered, left out and counted as one: the case, or the fact that stands alone."""
        return self.case_id or self.fact_id

    def __post_init__(self) -> None:
        for name in ("fact_id", "subject", "prompt", "target_new"):
            if not getattr(self, name).strip():
                raise CollateralError(
                    f"fact '{self.fact_id}' ({self.source}): field '{name}' is empty; give it a text"
                )
        if PLACEHOLDER not in self.prompt:
            raise CollateralError(
                f"fact '{self.fact_id}' ({self.source}): the prompt {self.prompt!r} has no '{{}}' for the "
                f"subject {self.subject!r}; the subject must stand in the prompt"
            )
        if self.target_new in (self.target_true, *self.true_aliases):
            raise CollateralError(
                f"fact '{self.fact_id}' ({self.source}): target_new {self.target_new!r} is already true; "
                "ask for another answer"
            )

    def text(self, template: str = PLACEHOLDER) -> str:
        """Return the rewrite prompt with its subject, put into a context template such as `"Yes. {}"`."""
        return template.replace(PLACEHOLDER, self.prompt.replace(PLACEHOLDER, self.subject, 1), 1)

    def subject_span(self, template: str = PLACEHOLDER) -> tuple[int, int]:
        """Return the character span of the subject within `text(template)`."""
        start = template.index(PLACEHOLDER) + self.prompt.index(PLACEHOLDER)
        return start, start + len(self.subject)


def template_from_text(text: str, subject: str, where: str) -> str:
    """Return `text` with the first occurrence of `subject` replaced by `{}`.

    Raises:
        CollateralError: the subject does not stand in the text, or the text already holds a literal `{}`.
    """
    if PLACEHOLDER in text:
        raise CollateralError(f"{where}: the prompt {text!r} holds a literal '{{}}'; take it out")
    if subject not in text:
        raise CollateralError(
            f"{where}: the subject {subject!r} does not stand in the prompt {text!r}; write it as it stands there"
        )
    return text.replace(subject, PLACEHOLDER, 1)


def first_records(facts: Sequence[Fact], limit: int | None) -> list[Fact]:
    """Return the facts of the first `limit` records, all of them for None; a case is one record and stays whole."""
    if limit is None:
        return list(facts)
    units = set(list(dict.fromkeys(fact.unit for fact in facts))[:limit])
    return [fact for fact in facts if fact.unit in units]


def write_facts(facts: Sequence[Fact], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the facts to a parquet file, whole or not at all.

    Raises:
        CollateralError: there are no facts, or two share a fact_id.
    """
    if not facts:
        raise CollateralError(f"{path}: the data set is empty; give it at least one fact")
    ids = [fact.fact_id for fact in facts]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise CollateralError(f"{path}: the fact_id '{twice}' stands twice; ids must be unique")
    table = pa.Table.from_pylist([asdict(fact) for fact in facts], schema=SCHEMA)
    table = table.replace_schema_metadata({**dict(metadata or {}), "collateral.format": "facts/2"})
    with whole_file(path) as partial:
        write_sealed(table, partial)


def read_facts(path: Path) -> list[Fact]:
    """Return the facts of a parquet file that `write_facts` wrote.

    Raises:
        CollateralError: the file is missing, corrupt or of another schema.
    """
    table = read_arrow(path, "a facts file")
    if not table.schema.equals(SCHEMA, check_metadata=False):
        raise CollateralError(f"{path}: not a facts file (other columns); delete it and run again")
    return [_fact(row) for row in table.to_pylist()]


def _fact(row: dict[str, object]) -> Fact:
    values: dict[str, object] = {}
    for field in fields(Fact):
        value = row[field.name]
        if field.name in ("neighborhood", "portability"):
            value = tuple(Probe(**probe) for probe in value)  # type: ignore[attr-defined]
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    return Fact(**values)  # type: ignore[arg-type]
