"""Measure the second moments of some layers' keys."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.corpus import documents
from collateral.editing.prepare.second_moments import measure_moments, write_moments
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    settings = dict(params.settings)
    texts = documents(
        settings.pop("text") | ({"file": str(snakemake.input.text)} if snakemake.input.text else {})
    )
    moments = measure_moments(model, params.layers, texts, **settings)
    write_moments(moments, Path(snakemake.output[0]), model.base_sha256)
