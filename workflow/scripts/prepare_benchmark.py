"""Turn the public files of a benchmark into the rows that tasks read."""

from dataclasses import asdict
from pathlib import Path

from collateral.joblog import job
from collateral.benchmarks.forms import convert
from collateral.sharing import made_from

with job(snakemake.log[0]):
    wildcards, source = snakemake.wildcards, snakemake.params.source
    raw, target = [Path(path) for path in snakemake.input], Path(snakemake.output[0])
    with made_from(target, asdict(source)):
        convert(wildcards.benchmark, wildcards.split, source, raw, target)
