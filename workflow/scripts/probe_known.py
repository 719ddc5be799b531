"""Find the facts that the unedited model completes right."""

from pathlib import Path

from collateral.joblog import job
from collateral.efficacy import known_facts, write_known
from collateral.facts import read_facts
from collateral.models import load_model

with job(snakemake.log[0], snakemake.params.runtime):
    params = snakemake.params
    model = load_model(Path(snakemake.input.model).parent, params.runtime["dtype"], params.runtime["device"])
    write_known(known_facts(model, read_facts(Path(snakemake.input.facts))), Path(snakemake.output[0]))
