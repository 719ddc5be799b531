"""One link of an editing chain."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.models.threads import set_threads
from collateral.pipeline.edit_chain import edit_link, parse_link_inputs
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, made = snakemake.params, snakemake.output
    edit_link(
        parse_link_inputs(dict(snakemake.input.items())),
        recipe=params.recipe,
        **params.link,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        delta=Path(made.delta),
        state=Path(made.state),
        records=Path(made.records),
        after_edit=Path(made.after_edit),
    )
