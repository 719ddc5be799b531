"""Raw forms of running text and of classified text → rows in the schema of the public hub data sets."""

import re
from collections.abc import Sequence
from pathlib import Path

from collateral.errors import CollateralError
from collateral.tasks.benchmarks.records import Record, broken, json_lines, lines_of, position, string

_HEADING = re.compile(r" = (?!=).*(?<!=) = ")  # one equals sign on each side: the title of an article


def lambada(files: Sequence[Path]) -> list[Record]:
    """Return `text` from JSON lines; the last word after the last blank is what is asked for."""
    (path,) = files
    rows = []
    for number, record in json_lines(path):
        text = string(path, number, record, "text")
        if " " not in text.strip():
            raise broken(path, number, "text", text, "it must have at least two words")
        rows.append({"text": text})
    return rows


def wikitext_pages(files: Sequence[Path]) -> list[Record]:
    """Return `page`, one row per article, from WikiText's raw form: ` = Title = ` begins an article.

    Raises:
        CollateralError: there is text before the first title.
    """
    (path,) = files
    pages: list[list[str]] = [[]]
    for line in lines_of(path):
        if _HEADING.fullmatch(line):
            pages.append([])
        pages[-1].append(line)
    if len(pages) == 1 or "".join(pages[0]).strip():
        raise CollateralError(
            f"{path}: does not begin with the title of an article ( = Title = ); fetch it anew"
        )
    return [{"page": "\n".join(lines)} for lines in pages[1:]]


def sst2_table(files: Sequence[Path]) -> list[Record]:
    """Return idx, sentence, label (0 negative, 1 positive) from lines `sentence TAB label` without a header."""
    (path,) = files
    rows = []
    for number, line in enumerate(lines_of(path), 1):
        sentence, tab, label = line.rpartition("\t")
        if not tab or not sentence.strip():
            raise broken(path, number, "the line", line, "it must be a sentence, a tab and a label")
        place = position(path, number, "the label", label.strip(), ("0", "1"))
        rows.append({"idx": number - 1, "sentence": sentence, "label": place})
    return rows


def boolq(files: Sequence[Path]) -> list[Record]:
    """Return idx, question, passage, label (1 is yes) from BoolQ's release: JSON lines with a Boolean `answer`."""
    (path,) = files
    return [
        {
            "idx": number - 1,
            "question": string(path, number, record, "question"),
            "passage": string(path, number, record, "passage"),
            "label": position(path, number, "answer", record.get("answer"), (False, True)),
        }
        for number, record in json_lines(path)
    ]
