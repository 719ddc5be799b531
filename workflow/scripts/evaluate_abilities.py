"""Evaluate a checkpoint, or the unedited model where there are no deltas, on one suite."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.editing.checkpoint import at_checkpoint
from collateral.evaluation.harness import evaluate, write_not_evaluated, write_result
from collateral.io.atomic import read_sealed_json
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, given = snakemake.params, snakemake.input
    files = Path(snakemake.output.result), Path(snakemake.output.samples)
    verdict = read_sealed_json(Path(str(given.verdict)), "a verdict") if given.get("verdict") else {}
    if verdict.get("collapsed_at") is not None:
        write_not_evaluated(verdict, *files)
    else:
        model = load_model(Path(given.model).parent, params.runtime["dtype"], params.runtime["device"])
        deltas = [Path(path) for path in given.get("deltas", [])]
        state = Path(str(given.state)) if given.get("state") else None
        folders = [Path(folder) for folder in params.folders]
        prepared = {(Path(path).parent.name, Path(path).stem): Path(path) for path in given.get("data", [])}
        with at_checkpoint(model, deltas, state):
            result = evaluate(model, params.suite, folders, adapted=state is not None, data=prepared)
        write_result(result, *files)
