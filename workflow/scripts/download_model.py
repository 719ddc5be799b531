"""Fetch a model into its folder and write the manifest."""

from pathlib import Path

from collateral.joblog import job
from collateral.modelsource import fetch_model

with job(snakemake.log[0]):
    fetch_model(snakemake.params.source, Path(snakemake.output[0]).parent)
