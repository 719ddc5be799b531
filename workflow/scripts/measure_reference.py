"""Probe the unedited model on the facts of one link."""

from pathlib import Path

from collateral.efficacy import measure_facts, write_rows
from collateral.facts import read_facts
from collateral.joblog import job
from collateral.models import load_model
from collateral.sequences import chosen_facts

with job(snakemake.log[0], snakemake.params.runtime["threads"]):
    params, given = snakemake.params, snakemake.input
    facts = {fact.fact_id: fact for fact in read_facts(Path(given.facts))}
    known = Path(str(given.known)) if given.known else None
    chosen = chosen_facts(facts, Path(given.sequence), known, params.link["edits"])[params.link["start"] :]
    model = load_model(Path(given.model).parent, params.runtime["dtype"], params.runtime["device"])
    write_rows(measure_facts(model, chosen, "before", params.link["new_tokens"]), Path(snakemake.output[0]))
