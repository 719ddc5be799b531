"""Fetch a model into its folder and write the manifest."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.models.download import check_family, fetch_model

with job(snakemake.log[0]):
    folder = Path(snakemake.output[0]).parent
    fetch_model(snakemake.params.source, folder)
    check_family(folder, snakemake.params.family)
