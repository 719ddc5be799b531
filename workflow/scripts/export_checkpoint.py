"""Save a checkpoint as a full model folder."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.models.threads import set_threads
from collateral.pipeline.edit_chain import export_checkpoint

with job(snakemake.log[0]):
    set_threads(1)
    deltas = [Path(path) for path in snakemake.input.deltas]
    model = Path(snakemake.input.model).parent
    export_checkpoint(model, deltas, snakemake.params.runtime["dtype"], Path(snakemake.output[0]))
