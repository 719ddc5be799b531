"""Probe every fact edited so far at one checkpoint."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.edit_order import chosen_facts
from collateral.data.facts import read_facts
from collateral.editing.checkpoint import at_checkpoint
from collateral.evaluation.efficacy import measure_facts, read_reference, write_rows
from collateral.models.language_model import load_model
from collateral.models.threads import set_threads
from collateral.runtime.job_cache import make_claim

claim = make_claim(snakemake.rule, snakemake.input, snakemake.output, snakemake.params)
with job(snakemake.log[0], snakemake.params.runtime["device"], claim):
    set_threads(snakemake.params.runtime["threads"])
    params, given = snakemake.params, snakemake.input
    facts = {fact.fact_id: fact for fact in read_facts(Path(given.facts))}
    known = Path(str(given.known)) if given.known else None
    chosen = chosen_facts(facts, Path(given.sequence), known, params.link["edits"])
    reference = read_reference([Path(path) for path in given.reference])
    model = load_model(Path(given.model).parent, params.runtime["dtype"], params.runtime["device"])
    state = Path(str(given.state)) if given.state else None
    with at_checkpoint(model, [Path(path) for path in given.deltas], state):
        rows = measure_facts(model, chosen, "now", params.link["new_tokens"], reference)
    write_rows(rows, Path(snakemake.output[0]))
