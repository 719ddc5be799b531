"""Find the facts that the unedited model completes right."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.facts import read_facts
from collateral.evaluation.efficacy import known_facts, write_known
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads

with job(snakemake.log[0], snakemake.params.runtime["device"]):
    set_threads(snakemake.params.runtime["threads"])
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    write_known(known_facts(model, read_facts(Path(snakemake.input.facts))), Path(snakemake.output[0]))
