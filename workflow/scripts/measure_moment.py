"""Measure the second moment of one layer's keys."""

from pathlib import Path

from collateral.joblog import job
from collateral.kept import claim
from collateral.models import load_model
from collateral.moments import measure_moment, write_moment
from collateral.texts import documents

own = claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime, own):
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    layer = int(snakemake.wildcards.layer)
    settings = dict(params.settings)
    texts = documents(
        settings.pop("text") | ({"file": str(snakemake.input.text)} if snakemake.input.text else {})
    )
    moment = measure_moment(model, layer, texts, **settings)
    write_moment(moment, Path(snakemake.output[0]), model.base_sha256, layer)
