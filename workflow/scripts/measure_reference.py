"""Probe the unedited model on one block of facts."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.edit_order import chosen_facts, facts_between
from collateral.data.facts import read_facts
from collateral.evaluation.efficacy import measure_facts, write_rows
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, given = snakemake.params, snakemake.input
    facts = {fact.fact_id: fact for fact in read_facts(Path(given.facts))}
    known = Path(str(given.known)) if given.known else None
    start, end = params.block["start"], params.block["end"]
    needed = min(end, snakemake.resources.last_edit)
    chosen_facts(facts, Path(given.sequence), known, needed)  # too few facts are found before any edit
    chosen = facts_between(facts, Path(given.sequence), known, start, end)
    model = load_model(Path(given.model).parent, params.runtime["dtype"], params.runtime["device"])
    write_rows(measure_facts(model, chosen, "before", params.block["new_tokens"]), Path(snakemake.output[0]))
