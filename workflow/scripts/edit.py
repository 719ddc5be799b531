"""One link of an editing chain."""

from pathlib import Path

from collateral.chain import LinkFiles, edit_link
from collateral.joblog import job

with job(snakemake.log[0], snakemake.params.runtime["threads"]):
    params, given, made = snakemake.params, snakemake.input, snakemake.output
    edit_link(
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
            deltas=[Path(path) for path in given.deltas],
            state=Path(str(given.state)) if given.state else None,
        ),
        recipe=params.recipe,
        **params.link,
        dtype=params.runtime["dtype"],
        device=params.runtime["device"],
        delta=Path(made.delta),
        state=Path(made.state),
        records=Path(made.records),
        after_edit=Path(made.after_edit),
    )
