"""`collateral report`: redraw a finished study's report, or draw that of an unfinished one from what exists.

A partial report lies in `results/partial/`, where Snakemake looks for no results. It can be drawn during a run.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collateral.cli.command import Command
from collateral.runtime.run_lock import find_run
from collateral.study import paths as places
from collateral.study.command_line import NamedStudy, add_study_options, read_named_study

if TYPE_CHECKING:
    from collateral.report.progress import UsableResults

PARTIAL = Path("results/partial")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study, and the cores for Snakemake."""
    add_study_options(parser)
    parser.add_argument("--cores", default="1", help="for Snakemake, where the study is finished")


def run(arguments: argparse.Namespace) -> int:
    """Draw the report, and print where it is."""
    from collateral.report.progress import LAST, find_missing_jobs, find_usable_results
    from collateral.study.jobs import list_jobs
    from collateral.study.outputs import list_results

    named = read_named_study(arguments)
    usable = find_usable_results(list_results(named.study))
    jobs = list_jobs(named.study, named.task_folders, named.mirror)
    rows = find_missing_jobs((job for job in jobs if job.rule not in LAST), usable.broken)
    if not rows and not find_run(Path()):
        return redraw_report(named, arguments.cores)
    rows = rows or find_missing_jobs(jobs, usable.broken)
    write_partial_report(named, usable, rows)
    count = sum(row["of"] - row["done"] for row in rows)
    page = PARTIAL / "report/index.html"
    sys.stdout.write(f"Report of what exists, without {count} of {len(jobs)} jobs: {page}\n")
    return 0


def redraw_report(named: NamedStudy, cores: str) -> int:
    """Draw the report by its rule, and Snakemake's own report beside it; return the exit status."""
    offline = {"HF_HUB_OFFLINE": "1", **os.environ}
    for options in (["--forcerun", "report"], ["--report", "results/report/snakemake.html"]):
        done = subprocess.run([*named.snakemake("--cores", cores), *options], check=False, env=offline)
        if done.returncode:
            return done.returncode
    sys.stdout.write(f"Report: {places.PAGE}\n")
    return 0


def write_partial_report(named: NamedStudy, usable: "UsableResults", rows: list[dict[str, Any]]) -> None:
    """Write tables and report of the results that exist; `rows` say what is missing."""
    import polars as pl

    from collateral.analysis.statistics.derive import derive_tables
    from collateral.analysis.statistics.inference import Terms
    from collateral.analysis.tables.gather import gather_tables, write_tables
    from collateral.analysis.tables.schema import TABLES, conform_table
    from collateral.report.progress import try_tables
    from collateral.report.write import write_report
    from collateral.study.outputs import list_sequences
    from collateral.tasks.registry import suite_metadata

    study = named.study
    tasks = {name: study.settings["suites"][name]["tasks"] for name in study.names("suites")}
    texts = {name: [str(folder) for folder in folders] for name, folders in named.task_folders.items()}
    editors = {name: study.settings["editors"][name] for name in study.names("editors")}
    benchmarks, collapse = Path("benchmarks"), study.settings["collapse"]
    measured = gather_tables(usable.paths, suite_metadata(tasks, texts), editors, collapse, benchmarks)
    inferred, fault = try_tables(lambda: derive_tables(measured, Terms.of(study.settings["inference"])))
    if fault:  # the pairs may be incomplete only because their jobs are not done
        rows = [*rows, {"rule": "infer", "done": 0, "of": 1, "where": fault}]
    tables = {name: conform_table(name, (measured | inferred).get(name, pl.DataFrame())) for name in TABLES}
    write_tables(tables, PARTIAL / "tables")
    paths = [PARTIAL / f"tables/{name}.parquet" for name in tables]
    sources = [places.manifest(model) for model in study.names("models")] + list_sequences(study)
    hashed = {str(path): path for path in [*map(Path, sources), *paths] if path.is_file()}
    write_report(paths, hashed, study.settings, PARTIAL / "report", PARTIAL / "figures", rows)


COMMAND = Command("report", "redraw the report; of an unfinished study, from what exists", add_options, run)
