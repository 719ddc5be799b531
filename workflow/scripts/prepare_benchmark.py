"""Turn the public files of a benchmark into the rows that tasks read."""

from dataclasses import asdict
from pathlib import Path

from collateral.runtime.job import job
from collateral.data.shared_resources import made_from
from collateral.tasks.benchmarks.converters import convert

with job(snakemake.log[0]):
    wildcards, source = snakemake.wildcards, snakemake.params.source
    raw, target = [Path(path) for path in snakemake.input], Path(snakemake.output[0])
    with made_from(target, asdict(source)):
        convert(wildcards.benchmark, wildcards.split, source, raw, target)
