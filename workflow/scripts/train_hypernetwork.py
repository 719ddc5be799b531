"""Train the hypernetwork of an editor that learns to edit."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.editing.train_hypernetwork import train_hypernetwork
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, given = snakemake.params, snakemake.input
    train_hypernetwork(
        model=Path(given.model).parent,
        facts=Path(given.facts),
        sequence=Path(given.sequence),
        known=Path(str(given.known)) if given.known else None,
        training=Path(str(given.training)) if given.training else None,
        settings=params.training["settings"],
        seed=params.training["seed"],
        edits=snakemake.resources.last_edit,
        code=params.code,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        archive=Path(snakemake.output[0]),
    )
