"""Raw forms of benchmarks whose answers are written out: dialogues to summarise, passages to read, names to find."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from collateral.tasks.benchmarks.records import (
    Record,
    broken,
    json_lines,
    json_list,
    lines_of,
    string,
    strings,
    table_rows,
)

ENTITY_TYPES = {"PER": "Person", "LOC": "Location", "ORG": "Organization", "MISC": "Miscellaneous"}
_DOCUMENT = "-DOCSTART-"
_COLUMNS = 4  # token, part of speech, chunk, entity


def samsum_list(files: Sequence[Path]) -> list[Record]:
    """Return id, dialogue, summary from SAMSum's release: a JSON list."""
    (path,) = files
    return [
        {field: string(path, number, record, field) for field in ("id", "dialogue", "summary")}
        for number, record in json_list(path)
    ]


def samsum_table(files: Sequence[Path]) -> list[Record]:
    """Return id, dialogue, summary from SAMSum as a table with that header."""
    (path,) = files
    fields = ["id", "dialogue", "summary"]
    rows = []
    for number, cells in table_rows(path, ",", 3):
        if number == 1:
            if cells != fields:
                raise broken(path, number, "the header", cells, f"it must be {','.join(fields)}")
            continue
        record: Record = dict(zip(fields, cells, strict=True))
        rows.append({field: string(path, number, record, field) for field in fields})
    return rows


def answered_passages(files: Sequence[Path]) -> list[Record]:
    """Return question, answer (a list), passage from JSON lines whose `output` holds the passage.

    The field names are those of the RECT study's released file; `output` is a text or a list whose first is read.
    """
    (path,) = files
    rows = []
    for number, record in json_lines(path):
        passage = record.get("output")
        passage = passage[0] if isinstance(passage, list) and passage else passage
        if not isinstance(passage, str) or not passage.strip():
            raise broken(path, number, "output", passage, "it must hold a passage")
        rows.append(
            {
                "question": string(path, number, record, "question"),
                "answer": strings(path, number, record, "answer"),
                "passage": passage,
            }
        )
    return rows


def conll_entities(files: Sequence[Path]) -> list[Record]:
    """Return sentence, type, entities for each sentence and each of the four types, from CoNLL-2003's columns.

    The sentence is its tokens joined by blanks. Entities are the spans of the type in order, IOB1 and IOB2 alike: a
    span begins at B-, after another type, and after O.
    """
    (path,) = files
    rows = []
    for tokens, tags in _sentences(path):
        spans = list(_spans(tokens, tags))
        rows += [
            {
                "sentence": " ".join(tokens),
                "type": word,
                "entities": [text for kind, text in spans if kind == label],
            }
            for label, word in ENTITY_TYPES.items()
        ]
    return rows


def _sentences(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*lines_of(path), ""], 1):
        cells = line.split()
        if cells and cells[0] != _DOCUMENT:
            if len(cells) != _COLUMNS:
                raise broken(
                    path, number, "the line", line, "it must be token, pos, chunk and ner, by blanks"
                )
            kind, _, label = cells[3].partition("-")
            if cells[3] != "O" and (kind not in ("B", "I") or label not in ENTITY_TYPES):
                raise broken(
                    path, number, "ner", cells[3], f"it must be O, or B- or I- and {', '.join(ENTITY_TYPES)}"
                )
            tokens.append(cells[0])
            tags.append(cells[3])
        elif tokens:
            yield tokens, tags
            tokens, tags = [], []


def _spans(tokens: Sequence[str], tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield type and text of each entity."""
    start = 0
    for place, tag in enumerate([*tags, "O"]):
        kind, _, label = tag.partition("-")
        open_label = tags[place - 1].partition("-")[2] if place else ""
        if open_label and (kind != "I" or label != open_label):
            yield open_label, " ".join(tokens[start:place])
        if label and (kind == "B" or label != open_label):
            start = place
