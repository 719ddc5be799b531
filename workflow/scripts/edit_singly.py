"""Edits of one part of the sequence, each from the unedited model."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.models.threads import set_threads
from collateral.pipeline.edit_chain import parse_link_inputs
from collateral.pipeline.edit_singly import edit_singly
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, made = snakemake.params, snakemake.output
    edit_singly(
        parse_link_inputs(dict(snakemake.input.items())),
        recipe=params.recipe,
        **params.link,
        weigh=params.weigh,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        records=Path(made.records),
        after_edit=Path(made.after_edit),
        weights=Path(made.weights),
    )
