"""Evaluate a checkpoint, or the unedited model where there are no deltas, on one suite."""

from pathlib import Path

from collateral.abilities import evaluate, write_result
from collateral.joblog import job
from collateral.models import load_model
from collateral.session import apply_chain

with job(snakemake.log[0], snakemake.params.runtime["threads"]):
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    apply_chain(model, [Path(path) for path in snakemake.input.get("deltas", [])])
    result = evaluate(model, params.suite, [Path(folder) for folder in params.folders])
    write_result(result, Path(snakemake.output.result), Path(snakemake.output.samples))
