"""Rebuild the report: of a finished study through Snakemake, of any other from the results that are there.

Called by `make report STUDY=…`. A partial report lies in `results/partial/`, where Snakemake takes nothing of it for
a result, and needs no lock of Snakemake's: it is made also while the study is running.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.statistics.derive import derived
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.tables.gather import gathered, write_tables
from collateral.analysis.tables.schema import TABLES, conformed
from collateral.errors import CollateralError
from collateral.report.progress import LAST, Sifted, attempted, missing, sifted
from collateral.report.write import write_report
from collateral.study import outputs as results
from collateral.study import paths as places
from collateral.study.command_line import mirror, named_study, snakemake_command, study_options, task_folders
from collateral.study.design import Study
from collateral.study.jobs import study_jobs
from collateral.tasks.registry import suite_metadata

ROOT = Path(__file__).parents[1]
PARTIAL = Path("results/partial")
LOCKS = Path(".snakemake/locks")


def main() -> None:
    """Rebuild the report of the study that the command line names."""
    parser = argparse.ArgumentParser(description="Rebuild the report from what exists.")
    study_options(parser)
    parser.add_argument("--cores", default="1", help="for Snakemake, where the study is finished")
    given = parser.parse_args()
    try:
        own, study = named_study(ROOT, given)
        folders = task_folders(study, ROOT)
        there = sifted(results.gathered(study))
        jobs = study_jobs(study, folders, mirror(study, ROOT))
        left = missing((job for job in jobs if job.rule not in LAST), there.broken)
        if not left and not any(LOCKS.glob("*")):
            sys.exit(through_snakemake(own, given.config, given.cores))
        left = left or missing(jobs, there.broken)
        write_partial(study, folders, there, left)
    except CollateralError as error:
        sys.exit(f"report: {error}")
    counted = sum(row["of"] - row["done"] for row in left)
    sys.stdout.write(
        f"Report of what exists, without {counted} of {len(jobs)} jobs: {PARTIAL / 'report/index.html'}\n"
    )


def through_snakemake(own: Path | None, pairs: list[str], cores: str) -> int:
    """Draw the report by its rule, and Snakemake's own report beside it; return the exit status."""
    command = snakemake_command(ROOT, own, pairs, "--cores", cores)
    offline = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    for last in (["--forcerun", "report"], ["--report", "results/report/snakemake.html"]):
        done = subprocess.run([*command, *last], check=False, env=offline)
        if done.returncode:
            return done.returncode
    sys.stdout.write(f"Report: {places.PAGE}\n")
    return 0


def write_partial(
    study: Study, folders: dict[str, list[Path]], there: Sifted, left: list[dict[str, Any]]
) -> None:
    """Write tables and report of what is there."""
    asked = {name: study.settings["suites"][name]["tasks"] for name in study.names("suites")}
    texts = {name: [str(folder) for folder in own] for name, own in folders.items()}
    editors = {name: study.settings["editors"][name] for name in study.names("editors")}
    benchmarks, collapse = Path("benchmarks"), study.settings["collapse"]
    measured = gathered(there.paths, suite_metadata(asked, texts), editors, collapse, benchmarks)
    inferred, fault = attempted(lambda: derived(measured, Terms.of(study.settings["inference"])))
    if fault:  # the pairs may be incomplete only because their jobs are not done
        left = [*left, {"rule": "infer", "done": 0, "of": 1, "where": fault}]
    tables = {name: conformed(name, (measured | inferred).get(name, pl.DataFrame())) for name in TABLES}
    write_tables(tables, PARTIAL / "tables")
    paths = [PARTIAL / f"tables/{name}.parquet" for name in tables]
    sources = [places.manifest(model) for model in study.names("models")] + results.sequences(study)
    hashed = {str(path): path for path in [*map(Path, sources), *paths] if path.is_file()}
    write_report(paths, hashed, study.settings, PARTIAL / "report", PARTIAL / "figures", left)


if __name__ == "__main__":
    main()
