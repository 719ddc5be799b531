"""Sample context templates from the unedited model, or check the explicit ones."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.editing.prepare.context_templates import check_templates, sample_templates, write_templates
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads

with job(snakemake.log[0], snakemake.params.runtime["device"]):
    set_threads(snakemake.params.runtime["threads"])
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    settings = params.settings
    if settings["explicit"]:
        templates = check_templates(settings["explicit"])
    else:
        templates = sample_templates(model, settings["lengths"], settings["seed"], settings["top_k"])
    write_templates(templates, Path(snakemake.output[0]), model.base_sha256)
