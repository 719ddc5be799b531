"""Draw the report."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.report.write import write_report

with job(snakemake.log[0]):
    given = snakemake.input
    write_report(
        [Path(path) for path in given.tables],
        {str(path): Path(path) for path in [*given.models, *given.sequences, *given.tables]},
        snakemake.params.settings,
        Path(snakemake.output.page).parent,
        Path(snakemake.output.figures),
    )
