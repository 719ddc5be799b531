"""Fetch a data set's file and verify it."""

from pathlib import Path

from collateral.downloads import fetch
from collateral.joblog import job

with job(snakemake.log[0]):
    fetch(snakemake.params.source, Path(snakemake.output[0]), snakemake.params.mirror)
