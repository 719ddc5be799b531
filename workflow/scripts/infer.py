"""Infer what the gathered tables show: comparisons, horizons, retention, trade-offs, predictors."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.analysis.statistics.derive import derive_tables
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.tables.gather import write_tables
from collateral.data.edit_order import read_table

with job(snakemake.log[0]):
    paths = [Path(path) for path in snakemake.input]
    tables = {path.stem: read_table(path, "a result table", ()) for path in paths}
    found = derive_tables(tables, Terms.of(snakemake.params.terms))
    write_tables(found, Path(snakemake.output[0]).parent)
