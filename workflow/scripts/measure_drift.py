"""Measure how far a checkpoint's activations and predictions on a fixed text are from the unedited model's."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.corpus import documents
from collateral.evaluation.drift import measure_drift
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, given = snakemake.params, snakemake.input
    model = load_model(Path(given.model).parent, params.runtime["dtype"], params.runtime["device"])
    settings = dict(params.settings)
    measure_drift(
        model,
        [Path(path) for path in given.deltas],
        documents(settings.pop("text") | ({"file": str(given.text)} if given.text else {})),
        path=Path(snakemake.output[0]),
        state=Path(str(given.state)) if given.state else None,
        **settings,
    )
