"""The fact set that comes with the project: a table of true facts, and the wording of each relation."""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.data.about import About
from collateral.data.facts import PLACEHOLDER, Fact, Probe
from collateral.errors import CollateralError, unknown_name
from collateral.io.yaml import read_yaml

ABOUT = About(
    title="the embedded facts (capitals, elements, …)",
    licence="Apache-2.0, with this project",
    citation="The Collateral maintainers. Facts written for this project",
    home="resources/embedded",
)

TABLE = "facts.tsv"
RELATIONS = "relations.yaml"
COLUMNS = ("relation", "subject", "answer")
PARAPHRASES = 2
NEIGHBORS = 5
MIN_SUBJECTS = NEIGHBORS + 2  # the fact itself, its neighbors, and one whose answer can be the edit target


@dataclass(frozen=True)
class Row:
    """One true fact of the table, with the line it stands on (the header is line 1)."""

    relation: str
    subject: str
    answer: str
    line: int


@dataclass(frozen=True)
class Wording:
    """The templates of a relation; `{}` is where the subject goes."""

    rewrite: str
    paraphrases: tuple[str, ...]
    neighborhood: str


def load(folder: Path) -> list[Fact]:
    """Return one edit request per row of `facts.tsv`, in the order of the table.

    The edit target is another answer of the same relation; the neighborhood asks for other subjects of the relation
    whose right answer is not that target. Both are drawn by rank: of all candidates, those with the smallest
    sha256(relation | subject | purpose | candidate). A draw depends on its own relation alone, never on the order of
    rows, and a row added to a relation changes few of the draws beside it and none in other relations.

    Raises:
        CollateralError: a file is missing or malformed, a relation is unknown or has fewer than 7 subjects, a subject
            stands twice, a cell is empty, or a target leaves fewer than 5 neighbors; the message names file, row
            and field.
    """
    folder = Path(folder)
    wordings = _read_wordings(folder / RELATIONS)
    rows = _read_rows(folder / TABLE, wordings)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.relation, []).append(row)
    for group in groups.values():
        if len(group) < MIN_SUBJECTS:
            raise CollateralError(
                f"{_at(folder / TABLE, group[-1], 'relation')} '{group[-1].relation}' has {len(group)} subjects in "
                f"all; at least {MIN_SUBJECTS} are needed, add facts or remove the relation"
            )
    facts = [_fact(row, groups[row.relation], wordings[row.relation], folder / TABLE) for row in rows]
    _refuse_equal_ids(facts, rows, folder / TABLE)
    return facts


def _fact(row: Row, group: Sequence[Row], wording: Wording, path: Path) -> Fact:
    targets = _ranked(row, "target", {other.answer for other in group} - {row.answer})
    if not targets:
        raise CollateralError(
            f"{_at(path, row, 'answer')} {row.answer!r} is the only answer of the relation '{row.relation}'; an edit "
            "target must be another one, add facts with other answers"
        )
    answers = {other.subject: other.answer for other in group if other.answer != targets[0]}
    neighbors = _ranked(row, "neighbor", answers.keys() - {row.subject})[:NEIGHBORS]
    if len(neighbors) < NEIGHBORS:
        raise CollateralError(
            f"{_at(path, row, 'relation')} '{row.relation}' has {len(neighbors)} other subjects whose answer is not "
            f"the edit target {targets[0]!r}; {NEIGHBORS} are needed, add facts with other answers"
        )
    return Fact(
        fact_id=_slug(f"{row.relation} {row.subject}"),
        subject=row.subject,
        relation=row.relation,
        prompt=wording.rewrite,
        target_new=targets[0],
        target_true=row.answer,
        paraphrases=tuple(_filled(template, row.subject) for template in wording.paraphrases),
        neighborhood=tuple(Probe(_filled(wording.neighborhood, name), answers[name]) for name in neighbors),
        source=f"embedded, {path.name} row {row.line}",
    )


def _ranked(row: Row, purpose: str, candidates: Iterable[str]) -> list[str]:
    def rank(candidate: str) -> str:
        return hashlib.sha256("|".join((row.relation, row.subject, purpose, candidate)).encode()).hexdigest()

    return sorted(candidates, key=rank)


def _filled(template: str, subject: str) -> str:
    return template.replace(PLACEHOLDER, subject, 1)


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _at(path: Path, row: Row, field: str) -> str:
    return f"{path}: row {row.line}: field '{field}':"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CollateralError(
            f"{path}: file not found; give the folder that holds {TABLE} and {RELATIONS}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CollateralError(f"{path}: not readable as UTF-8 text ({error}); restore the file") from None


def _read_rows(path: Path, wordings: Mapping[str, Wording]) -> list[Row]:
    lines = list(csv.reader(_read_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = lines[0] if lines else []
    if tuple(header) != COLUMNS:
        missing = [name for name in COLUMNS if name not in header]
        fault = f"field '{missing[0]}' is missing" if missing else f"the fields are {', '.join(header)}"
        raise CollateralError(
            f"{path}: row 1: {fault}; the header must be {', '.join(COLUMNS)}, tab-separated"
        )
    rows: list[Row] = []
    seen: dict[tuple[str, str], int] = {}
    for line, cells in enumerate(lines[1:], start=2):
        row = _row(path, line, cells)
        if row.relation not in wordings:
            raise CollateralError(
                f"{_at(path, row, 'relation')} {unknown_name('relation', row.relation, wordings)}"
            )
        first = seen.setdefault((row.relation, row.subject), line)
        if first != line:
            raise CollateralError(
                f"{_at(path, row, 'subject')} {row.subject!r} stands in row {first} of the relation "
                f"'{row.relation}' already; a subject has one answer, remove one of the rows"
            )
        rows.append(row)
    if not rows:
        raise CollateralError(f"{path}: row 2: field 'relation' is missing; the table needs facts")
    return rows


def _row(path: Path, line: int, cells: Sequence[str]) -> Row:
    if len(cells) > len(COLUMNS):
        raise CollateralError(
            f"{path}: row {line}: {len(cells)} fields; {len(COLUMNS)} are allowed ({', '.join(COLUMNS)}), remove tabs"
        )
    for place, name in enumerate(COLUMNS):
        cell = cells[place] if place < len(cells) else ""
        if not cell or cell != cell.strip():
            fault = "is empty" if not cell.strip() else f"is {cell!r}, with white space around it"
            raise CollateralError(
                f"{path}: row {line}: field '{name}' {fault}; each cell holds text alone, mend the row"
            )
    relation, subject, answer = cells
    return Row(relation, subject, answer, line)


def _read_wordings(path: Path) -> dict[str, Wording]:
    loaded = read_yaml(path, "the templates of relations")
    if not isinstance(loaded, dict) or not loaded:
        raise CollateralError(
            f"{path}: no table of relations; map the name of each relation to its templates"
        )
    return {str(name): _wording(f"{path}: relation '{name}'", fields) for name, fields in loaded.items()}


def _wording(where: str, fields: Any) -> Wording:
    needed = tuple(Wording.__dataclass_fields__)
    if not isinstance(fields, dict):
        raise CollateralError(f"{where}: it has no templates; give it {', '.join(needed)}")
    for name in fields:
        if name not in needed:
            raise CollateralError(f"{where}: {unknown_name('field', str(name), needed)}")
    for name in needed:
        if name not in fields:
            raise CollateralError(f"{where}: field '{name}' is missing; add the template")
    paraphrases = fields["paraphrases"]
    if not isinstance(paraphrases, list) or len(paraphrases) != PARAPHRASES:
        raise CollateralError(
            f"{where}: field 'paraphrases' is wrong; make it a list of {PARAPHRASES} templates"
        )
    return Wording(
        rewrite=_template(where, "rewrite", fields["rewrite"]),
        paraphrases=tuple(_template(where, "paraphrases", entry) for entry in paraphrases),
        neighborhood=_template(where, "neighborhood", fields["neighborhood"]),
    )


def _template(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or value.count(PLACEHOLDER) != 1 or value != value.strip():
        raise CollateralError(
            f"{where}: field '{name}' is {value!r}; a template must hold '{PLACEHOLDER}' once, and no white space "
            "around it"
        )
    return value


def _refuse_equal_ids(facts: Sequence[Fact], rows: Sequence[Row], path: Path) -> None:
    first: dict[str, Row] = {}
    for fact, row in zip(facts, rows, strict=True):
        other = first.setdefault(fact.fact_id, row)
        if other is not row:
            raise CollateralError(
                f"{_at(path, row, 'subject')} {row.subject!r} makes the id '{fact.fact_id}', as row {other.line} "
                "does; rename or remove one of them"
            )
