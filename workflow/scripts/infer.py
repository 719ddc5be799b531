"""Infer what the gathered tables show: comparisons, horizons, retention, trade-offs, predictors."""

from pathlib import Path

from collateral.joblog import job
from collateral.derived import derived
from collateral.gathering import write_tables
from collateral.inference import Terms
from collateral.sequences import read_table

with job(snakemake.log[0]):
    paths = [Path(path) for path in snakemake.input]
    tables = {path.stem: read_table(path, "a result table", ()) for path in paths}
    found = derived(tables, Terms.of(snakemake.params.terms))
    write_tables(found, Path(snakemake.output[0]).parent)
