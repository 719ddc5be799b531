"""What the jobs of a study took: time and memory as Snakemake recorded them, bytes of the updates. Torch-free."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.tables.collect import KEY, parse_key
from collateral.analysis.tables.schema import TABLES
from collateral.errors import CollateralError
from collateral.study.job_records import Record, parse_job, read_record
from collateral.study.jobs import Job

log = logging.getLogger(__name__)
UPDATE = ("delta.parquet", "state.safetensors")


def collect_costs(edits: Sequence[Path], benchmarks: Path) -> pl.DataFrame:
    """Return the table `costs`: one row per job of the study that was recorded or whose update lies on the disk.

    Nothing here is an input of the workflow: records may be lacking; those of other studies are left out.

    Args:
        edits: the records of edits, `edits.parquet`; their places say which chains the study has.
        benchmarks: the folder of Snakemake's benchmarks.
    """
    checkpoints = [parse_key(path) for path in edits]
    known = {tuple(key.values())[:length] for key in checkpoints for length in (1, 3, 5)}
    rows = {_identity(job): _row(job, record) for job, record in _records(benchmarks)}
    found = {identity: row for identity, row in rows.items() if _scope(row) in known}
    for path, key in zip(edits, checkpoints, strict=True):
        if path.parent.name.startswith("edits-"):
            own = ("edit", *key.values(), None)
            empty = {**key, "rule": "edit", "suite": None, "seconds": None, "max_rss_mb": None}
            found.setdefault(own, empty)["bytes"] = _bytes(path.parent)
    ordered = sorted(
        found.values(), key=lambda row: [str(row[name] or "") for name in ("rule", *KEY, "suite")]
    )
    return pl.DataFrame(ordered, schema=TABLES["costs"].schema)


def _records(folder: Path) -> list[tuple[Job, Record]]:
    """Return all records that can be read; the others are warned of, because no result depends on them."""
    found = []
    for path in sorted(folder.rglob("*.tsv")):
        try:
            job = parse_job(path.relative_to(folder))
            if job is not None:
                found.append((job, read_record(path)))
        except (CollateralError, ValueError, OSError) as error:
            log.warning("%s: not counted (%s)", path, error)
    return found


def _identity(job: Job) -> tuple[Any, ...]:
    """Return by what a job is told from others; a row of the table has the same, but for the layers of moments."""
    row = _row(job, Record(0, None))
    return (row["rule"], *(row[name] for name in KEY), row["suite"], *job.layers)


def _row(job: Job, record: Record) -> dict[str, Any]:
    return {
        "rule": job.rule,
        "model": job.model or None,
        "dataset": job.dataset or None,
        "seed": job.seed if job.dataset else None,
        "editor": job.editor or None,
        "edits": job.edits or None,
        "suite": job.suite or None,
        "seconds": record.seconds,
        "max_rss_mb": record.memory,
        "bytes": None,
    }


def _scope(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the checkpoint that a job is of, or the order or the model for which it prepares something."""
    length = 5 if row["editor"] and row["edits"] else 3 if row["dataset"] else 1
    return tuple(row[name] for name in KEY)[:length]


def _bytes(folder: Path) -> int | None:
    """Return what the files of an update take on the disk; None where one is not there."""
    files = [folder / name for name in UPDATE]
    return sum(file.stat().st_size for file in files) if all(file.is_file() for file in files) else None
