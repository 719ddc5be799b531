"""Turn the public files of a benchmark into the rows that tasks read."""

from pathlib import Path

from collateral.benchmarks.forms import convert
from collateral.joblog import job

with job(snakemake.log[0]):
    wildcards = snakemake.wildcards
    raw = [Path(path) for path in snakemake.input]
    convert(wildcards.benchmark, wildcards.split, snakemake.params.source, raw, Path(snakemake.output[0]))
