"""Weigh the edited matrices of one checkpoint."""

from pathlib import Path

from collateral.chain import weigh_checkpoint
from collateral.joblog import job

with job(snakemake.log[0], snakemake.params.threads):
    weigh_checkpoint(
        Path(snakemake.input.model).parent,
        [Path(path) for path in snakemake.input.deltas],
        snakemake.params.settings,
        Path(snakemake.output.weights),
        Path(snakemake.output.heatmap),
    )
