"""Bring the text ahead that keys and activations are taken from."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.download.corpus import download_text

with job(snakemake.log[0]):
    source = dict(snakemake.params.source)
    download_text(source, source.pop("characters"), Path(snakemake.output[0]))
