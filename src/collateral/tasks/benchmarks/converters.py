"""Raw file(s) of a benchmark's split → JSON lines in the schema that the tasks read. Torch-free."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import whole_file
from collateral.tasks.benchmarks import generation as generations
from collateral.tasks.benchmarks import multiple_choice as choices
from collateral.tasks.benchmarks import text as passages
from collateral.tasks.benchmarks.catalogue import Source, benchmark
from collateral.tasks.benchmarks.records import Record, broken, json_lines, parquet_rows

Form = Callable[[Sequence[Path]], list[Record]]
FORMS: dict[str, Form] = {
    "answered_passages": generations.answered_passages,
    "arc_instructions": choices.arc_instructions,
    "arc_options": choices.arc_options,
    "boolq": passages.boolq,
    "conll_entities": generations.conll_entities,
    "hellaswag_lines": choices.hellaswag_lines,
    "lambada": passages.lambada,
    "mmlu_table": choices.mmlu_table,
    "mutual": choices.mutual,
    "piqa": choices.piqa,
    "samsum_list": generations.samsum_list,
    "samsum_table": generations.samsum_table,
    "sst2_table": passages.sst2_table,
    "truthfulqa_table": choices.truthfulqa_table,
    "wikitext_pages": passages.wikitext_pages,
    "winogrande_instructions": choices.winogrande_instructions,
}
ROWS = "rows"  # the file has the schema already: the fields are picked and checked


def convert(name: str, split: str, source: Source, raw_paths: Sequence[Path], target: Path) -> int:
    """Return the number of rows written to `target`, one JSON object a line, whole or not at all.

    Args:
        name: of the benchmark, in the catalogue.
        split: its split, for messages.
        source: the source that the raw files came from; its form says how they are read.
        raw_paths: the raw files in the order of `source.files`.
        target: the prepared file (`*.jsonl`). Equal raw files give equal bytes.

    Raises:
        CollateralError: a record is malformed, a raw file is missing, or the split has no rows.
    """
    about = benchmark(name)
    if len(raw_paths) != len(source.files):
        wanted = ", ".join(raw.name for raw in source.files)
        raise CollateralError(
            f"benchmark '{name}', split '{split}': {len(raw_paths)} raw files were given; give the form "
            f"'{source.form}' its {len(source.files)}: {wanted}"
        )
    paths = [Path(path) for path in raw_paths]
    rows = _rows(source.form, paths, about.fields)
    if not rows:
        raise CollateralError(
            f"{paths[0]}: has no records for '{name}', split '{split}'; fetch the file anew"
        )
    with whole_file(Path(target)) as partial, partial.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            ordered = {field: row[field] for field in about.fields}
            handle.write(json.dumps(ordered, ensure_ascii=False) + "\n")
    return len(rows)


def _rows(form: str, paths: Sequence[Path], fields: Sequence[str]) -> list[Record]:
    if form != ROWS:
        if form not in FORMS:
            raise unknown_name("form", form, [*FORMS, ROWS])
        return FORMS[form](paths)
    rows = []
    for path in paths:
        parquet = path.suffix == ".parquet"
        for number, record in parquet_rows(path, fields) if parquet else json_lines(path):
            for field in fields:
                if record.get(field) is None:
                    raise broken(path, number, field, None, "it must be there")
            rows.append(record)
    return rows
