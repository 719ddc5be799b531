"""Read one public format into the one record type, and put the facts into the form that is asked for."""

from pathlib import Path

from collateral.facts import first_records, write_facts
from collateral.joblog import job
from collateral.questions import in_form
from collateral.sources.formats import load_facts

with job(snakemake.log[0]):
    dataset = snakemake.params.dataset
    first = Path(snakemake.input[0])
    path = first.parent if len(snakemake.input) > 1 else first
    facts = in_form(load_facts(dataset["loader"], path), dataset["questions"])
    write_facts(
        first_records(facts, dataset["limit"]), Path(snakemake.output[0]), {"loader": dataset["loader"]}
    )
