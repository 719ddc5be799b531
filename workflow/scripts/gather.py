"""Gather all results into tidy tables."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.analysis.tables.gather import gather_tables, write_tables
from collateral.tasks.registry import suite_metadata

with job(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    write_tables(
        gather_tables(
            {name: [Path(path) for path in given.get(name, [])] for name in given.keys()},  # noqa: SIM118
            suite_metadata(params.suites, params.folders),
            params.editors,
            params.collapse,
            Path("benchmarks"),
        ),
        Path(snakemake.output[0]).parent,
    )
