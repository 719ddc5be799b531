"""Save a checkpoint as a full model folder."""

from pathlib import Path

from collateral.joblog import job
from collateral.chain import export_checkpoint

with job(snakemake.log[0]):
    deltas = [Path(path) for path in snakemake.input.deltas]
    model = Path(snakemake.input.model).parent
    export_checkpoint(model, deltas, snakemake.params.runtime["dtype"], Path(snakemake.output[0]))
