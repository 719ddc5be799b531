"""Raw forms of multiple-choice benchmarks → rows in the schema of the public hub data sets."""

import re
from collections.abc import Sequence
from pathlib import Path

from collateral.errors import CollateralError
from collateral.tasks.benchmarks.records import (
    Record,
    broken,
    json_lines,
    json_list,
    lines_of,
    position,
    string,
    strings,
    table_rows,
)

_LABELS = "ABCDEFGH"
_ADAPTED_QUESTION = re.compile(
    r"Please choose the correct answer to the question: (?P<question>.+)\n\n(?P<options>Answer1: .+)"
    r"\n\nAnswer format: answer1(?:/answer\d)+\s*",
    re.DOTALL,
)
_ADAPTED_BLANK = re.compile(
    r"Please choose the correct answer to fill in the blank to complete the given sentence: (?P<sentence>.+)"
    r"\n\n(?P<options>Option1: .+) Answer format: option1/option2\s*",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]* +")


def piqa(files: Sequence[Path]) -> list[Record]:
    """Return goal, sol1, sol2, label from PIQA's release: items as JSON lines, labels in a file of their own.

    Raises:
        CollateralError: a record is malformed, or the two files differ in length.
    """
    items, labels = files
    records, lines = list(json_lines(items)), lines_of(labels)
    if len(records) != len(lines):
        raise CollateralError(
            f"{labels}: has {len(lines)} labels for the {len(records)} items of {items.name}; "
            "fetch both files of the same release"
        )
    return [
        {
            **{field: string(items, number, record, field) for field in ("goal", "sol1", "sol2")},
            "label": position(labels, number, "the label", line.strip(), ("0", "1")),
        }
        for (number, record), line in zip(records, lines, strict=True)
    ]


def arc_options(files: Sequence[Path]) -> list[Record]:
    """Return id, question, choices, answerKey from JSON lines with `options: [{label, text}]` and `answer`."""
    (path,) = files
    rows = []
    for number, record in json_lines(path):
        options = record.get("options")
        if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, dict) for o in options):
            raise broken(path, number, "options", options, "it must be a list of {label, text}")
        labels = [string(path, number, option, "label") for option in options]
        texts = [string(path, number, option, "text") for option in options]
        key = string(path, number, record, "answer")
        position(path, number, "answer", key, labels)
        rows.append(
            {
                "id": string(path, number, record, "id"),
                "question": string(path, number, record, "question"),
                "choices": {"text": texts, "label": labels},
                "answerKey": key,
            }
        )
    return rows


def arc_instructions(files: Sequence[Path]) -> list[Record]:
    """Return id, question, choices, answerKey from ARC as instructions (`Answer1: … Answer2: …`).

    The instructions hold no item names and number the options: names are made from the position, labels are letters.
    """
    (path,) = files
    rows = []
    for number, record in json_list(path):
        instruction = string(path, number, record, "instruction")
        found = _ADAPTED_QUESTION.fullmatch(instruction)
        if found is None:
            raise broken(path, number, "instruction", instruction, "it must be a question with Answer1: …")
        texts = _numbered(path, number, found["options"], "Answer")
        allowed = [f"answer{place}" for place in range(1, len(texts) + 1)]
        answer = position(path, number, "answer", record.get("answer"), allowed)
        rows.append(
            {
                "id": f"item-{number:05d}",
                "question": found["question"].strip(),
                "choices": {"text": texts, "label": list(_LABELS[: len(texts)])},
                "answerKey": _LABELS[answer],
            }
        )
    return rows


def _numbered(path: Path, number: int, text: str, word: str) -> list[str]:
    """Return the texts between `Word1: `, `Word2: ` …, which must come in this order."""
    parts = re.split(rf"(?:^|\s){word}(\d): ?", text)
    if [int(place) for place in parts[1::2]] != list(range(1, len(parts) // 2 + 1)):
        raise broken(path, number, "instruction", text, f"its options must be numbered {word}1, {word}2 …")
    texts = [part.strip() for part in parts[2::2]]
    if len(texts) < 2 or not all(texts):
        raise broken(path, number, "instruction", text, "it must hold at least two options with text")
    return texts


def winogrande_instructions(files: Sequence[Path]) -> list[Record]:
    """Return sentence, option1, option2, answer ('1' or '2') from WinoGrande as instructions (`Option1: …`)."""
    (path,) = files
    rows = []
    for number, record in json_list(path):
        instruction = string(path, number, record, "instruction")
        found = _ADAPTED_BLANK.fullmatch(instruction)
        if found is None or found["sentence"].count("_") != 1:
            raise broken(
                path, number, "instruction", instruction, "it must be a sentence with one blank, Option1: …"
            )
        options = _numbered(path, number, found["options"], "Option")
        if len(options) != 2:
            raise broken(path, number, "instruction", instruction, "it must hold two options")
        answer = position(path, number, "answer", record.get("answer"), ("option1", "option2"))
        rows.append(
            {
                "sentence": found["sentence"].strip(),
                "option1": options[0],
                "option2": options[1],
                "answer": str(answer + 1),
            }
        )
    return rows


def mmlu_table(files: Sequence[Path]) -> list[Record]:
    """Return question, choices, answer (a position) from MMLU's release: question, A, B, C, D, letter; no header."""
    (path,) = files
    rows = []
    for number, (question, *choices, letter) in table_rows(path, ",", 6):
        if not question.strip() or not all(choice.strip() for choice in choices):
            raise broken(path, number, "a cell", [question, *choices], "none may be empty")
        answer = position(path, number, "the answer", letter.strip(), tuple(_LABELS[:4]))
        rows.append({"question": question, "choices": choices, "answer": answer})
    return rows


def truthfulqa_table(files: Sequence[Path]) -> list[Record]:
    """Return question, mc1_targets, mc2_targets from TruthfulQA's table of questions and reference answers.

    mc1: the best answer, then the incorrect ones; mc2: all correct answers, then the incorrect ones. Labels are 1
    for a true answer and 0 for a false one; answers are separated by semicolons.
    """
    (path,) = files
    rows = []
    names: list[str] = []
    for number, cells in table_rows(path, ",", 7):
        if not names:
            names = cells
            continue
        record: Record = dict(zip(names, cells, strict=True))
        best = string(path, number, record, "Best Answer").strip()
        true, false = (
            [text.strip() for text in string(path, number, record, name).split(";") if text.strip()]
            for name in ("Correct Answers", "Incorrect Answers")
        )
        rows.append(
            {
                "question": string(path, number, record, "Question"),
                "mc1_targets": _labelled([best], false),
                "mc2_targets": _labelled(true, false),
            }
        )
    return rows


def _labelled(true: Sequence[str], false: Sequence[str]) -> Record:
    return {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)}


def mutual(files: Sequence[Path]) -> list[Record]:
    """Return id, article, options, answers (a letter) from MuTual's records as JSON lines."""
    (path,) = files
    rows = []
    for number, record in json_lines(path):
        options = strings(path, number, record, "options", 4)
        letter = string(path, number, record, "answers")
        position(path, number, "answers", letter, tuple(_LABELS[: len(options)]))
        rows.append(
            {
                "id": string(path, number, record, "id"),
                "article": string(path, number, record, "article"),
                "options": options,
                "answers": letter,
            }
        )
    return rows


def hellaswag_lines(files: Sequence[Path]) -> list[Record]:
    """Return HellaSwag rows from six lines an item: `Activity: context`, right position, four endings.

    ASSUME: the last sentence of the context, if it is unfinished, is what the hub calls `ctx_b`; true of the items
    from video captions, which come first in the validation set. The texts lack the original's brackets already.
    """
    (path,) = files
    lines = lines_of(path)
    if len(lines) % 6:
        raise CollateralError(f"{path}: has {len(lines)} lines, not six an item; fetch the file anew")
    rows = []
    for number, start in enumerate(range(0, len(lines), 6), 1):
        heading, label, *endings = lines[start : start + 6]
        activity, colon, context = heading.partition(": ")
        if not colon or not context.strip():
            raise broken(path, number, "the first line", heading, "it must be 'Activity: context'")
        if not all(ending.strip() for ending in endings):
            raise broken(path, number, "an ending", endings, "all four must have text")
        label = str(position(path, number, "the second line", label.strip(), ("0", "1", "2", "3")))
        cut = max((found.end() for found in _SENTENCE_END.finditer(context)), default=len(context))
        rows.append(
            {
                "ind": number - 1,
                "activity_label": activity,
                "ctx_a": context[:cut].rstrip(),
                "ctx_b": context[cut:],
                "endings": endings,
                "label": label,
            }
        )
    return rows
