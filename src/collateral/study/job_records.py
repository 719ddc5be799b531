"""What Snakemake's benchmark files record of finished jobs. Torch-free."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from collateral.errors import CollateralError
from collateral.study.design import list_reference_blocks
from collateral.study.jobs import Job
from collateral.study.paths import parse_layers

_CHAIN = ("model", "dataset", "seed", "editor", "edits")
_WILDCARDS = {
    **dict.fromkeys(("edit", "edit_singly", "measure_efficacy", "measure_drift", "weigh"), _CHAIN),
    "evaluate_abilities": (*_CHAIN, "suite"),
    "evaluate_unedited": ("model", "suite"),
    "measure_moments": ("model", "layers"),
    "measure_reference": ("model", "dataset", "seed", "edits"),
    "train_hypernetwork": ("model", "dataset", "seed", "editor"),
}
"""Rule → the wildcards that the path of its benchmark file consists of."""


class Record(NamedTuple):
    """What Snakemake recorded of one job: wall-clock seconds, and resident megabytes (None: not seen)."""

    seconds: float
    memory: float | None


def read_records(folder: Path) -> dict[Job, Record]:
    """Return job (without its output) → record, for all benchmark files below a folder.

    Raises:
        CollateralError: a file is not a benchmark of Snakemake's.
    """
    files = [(job, path) for path in folder.rglob("*.tsv") if (job := parse_job(path.relative_to(folder)))]
    records: dict[Job, Record] = {}
    before: Job | None = None
    for job, path in sorted(files, key=lambda pair: (pair[0].rule, pair[0].cell, pair[0].edits)):
        # a link of a chain starts where the recorded one before it ends
        follows = (
            job.rule in {"edit", "edit_singly"}
            and before
            and (before.rule, before.cell) == (job.rule, job.cell)
        )
        records[replace(job, start=before.edits) if before and follows else job] = read_record(path)
        before = job
    return records


def parse_job(path: Path) -> Job | None:
    """Return the job of a benchmark file, without the start of its link; None where the path is of no known rule.

    Args:
        path: below `benchmarks/`, such as `edit/gpt2-xl/zsre/seed-0/rome/edits-0010.tsv`.
    """
    rule, *parts = path.with_suffix("").parts
    wildcards = _WILDCARDS.get(rule, ())
    if not wildcards or len(parts) != len(wildcards):
        return None
    values: dict[str, Any] = dict(zip(wildcards, parts, strict=True))
    for name in {"seed", "edits"} & values.keys():
        values[name] = int(values[name].rpartition("-")[2])
    if "layers" in values:
        values["layers"] = parse_layers(values["layers"])
    if rule == "measure_reference":
        values["start"] = list_reference_blocks(values["edits"])[-1][0]
    return Job(rule, "", **values)


def read_record(path: Path) -> Record:
    """Return what one benchmark file says; repeats are averaged.

    Raises:
        CollateralError: it is not a benchmark of Snakemake's.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        times = [float(row["s"]) for row in rows]
        memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in {"-", "NA", ""}]
    except (KeyError, TypeError, ValueError):
        times = []
    if not times:
        raise CollateralError(
            f"{path}: not a benchmark record with the columns s and max_rss; delete it, `make plan` works without it"
        )
    return Record(sum(times) / len(times), max(memory, default=None))
