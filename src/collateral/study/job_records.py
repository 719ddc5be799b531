"""Snakemake's benchmark records, read."""

import csv
from pathlib import Path
from typing import NamedTuple

from collateral.errors import CollateralError
from collateral.study.jobs import Job, recorded_job


class Record(NamedTuple):
    """What Snakemake's benchmark recorded of one job: wall-clock seconds, and resident megabytes (None: not seen)."""

    seconds: float
    memory: float | None


def read_records(folder: Path) -> dict[Job, Record]:
    """Return job (without its output) → record, for all benchmarks below a folder; repeats are averaged.

    Raises:
        CollateralError: a file is not a benchmark of Snakemake's.
    """
    found: dict[Job, Record] = {}
    for path in sorted(folder.rglob("*.tsv")):
        siblings = [one.name for one in path.parent.glob("*.tsv")]
        job = recorded_job(path.relative_to(folder).as_posix(), siblings)
        if job is not None:
            found[job] = read_record(path)
    return found


def read_record(path: Path) -> Record:
    """Return what one benchmark of Snakemake's says.

    Raises:
        CollateralError: it is none.
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
            f"{path}: not a benchmark record with the columns s and max_rss; delete it, the plan does without it"
        )
    return Record(sum(times) / len(times), max(memory, default=None))
