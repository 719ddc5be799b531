"""Weigh the edited matrices of one checkpoint."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.evaluation.weights.statistics import weigh_checkpoint
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    weigh_checkpoint(
        Path(snakemake.input.model).parent,
        [Path(path) for path in snakemake.input.deltas],
        snakemake.params.settings,
        Path(snakemake.output.weights),
        Path(snakemake.output.heatmap),
        Path(str(snakemake.input.state)) if snakemake.input.state else None,
    )
