"""Edits of one part of the sequence, each from the unedited model."""

from pathlib import Path

from collateral.joblog import job
from collateral.chain import link_files
from collateral.kept import claim
from collateral.singles import edit_singly

own = claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime, own):
    params, made = snakemake.params, snakemake.output
    edit_singly(
        link_files(dict(snakemake.input.items())),
        recipe=params.recipe,
        **params.link,
        weigh=params.weigh,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        records=Path(made.records),
        after_edit=Path(made.after_edit),
        weights=Path(made.weights),
    )
