"""Edits of one part of the sequence, each from the unedited model."""

from pathlib import Path

from collateral.chain import LinkFiles
from collateral.joblog import job
from collateral.singles import edit_singly

with job(snakemake.log[0], snakemake.params.runtime["threads"]):
    params, given, made = snakemake.params, snakemake.input, snakemake.output
    edit_singly(
        LinkFiles(
            model=Path(given.model).parent,
            facts=Path(given.facts),
            sequence=Path(given.sequence),
            known=Path(str(given.known)) if given.known else None,
            contexts=Path(given.contexts),
            moments=[Path(path) for path in given.get("moments", [])],
            hypernetwork=Path(str(given.hypernetwork)) if given.hypernetwork else None,
            reference=[Path(path) for path in given.reference],
            like=[Path(path) for path in given.like],
        ),
        recipe=params.recipe,
        **params.link,
        weigh=params.weigh,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        records=Path(made.records),
        after_edit=Path(made.after_edit),
        weights=Path(made.weights),
    )
