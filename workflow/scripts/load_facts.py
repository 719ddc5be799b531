"""Read one public format into the one record type, and put the facts into the form that is asked for."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.facts import first_records, write_facts
from collateral.data.question_forms import in_form
from collateral.data.registry import load_facts
from collateral.data.shared_resources import facts_source, made_from

with job(snakemake.log[0]):
    dataset = snakemake.params.dataset
    first = Path(snakemake.input[0])
    path = first.parent if len(snakemake.input) > 1 else first
    facts = in_form(load_facts(dataset["loader"], path), dataset["questions"])
    table = Path(snakemake.output[0])
    with made_from(table, facts_source(dataset, snakemake.input[0])):
        write_facts(first_records(facts, dataset["limit"]), table, {"loader": dataset["loader"]})
