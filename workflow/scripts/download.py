"""Fetch a data set's file and verify it."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.download.fetch import fetch

with job(snakemake.log[0]):
    mirror = snakemake.resources.mirror
    fetch(snakemake.params.source, Path(snakemake.output[0]), Path(mirror) if mirror else None)
