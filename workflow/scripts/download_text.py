"""Bring the text ahead that keys and activations are taken from."""

from pathlib import Path

from collateral.joblog import job
from collateral.hubtext import bring_text

with job(snakemake.log[0]):
    source = dict(snakemake.params.source)
    bring_text(source, source.pop("characters"), Path(snakemake.output[0]))
