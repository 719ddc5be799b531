"""Fetch a model into its folder and write the manifest."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.models.download import fetch_model

with job(snakemake.log[0]):
    fetch_model(snakemake.params.source, Path(snakemake.output[0]).parent)
