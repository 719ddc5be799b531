"""Read one public format into the one record type."""

from pathlib import Path

from collateral.facts import write_facts
from collateral.joblog import job
from collateral.sources.formats import load_facts

with job(snakemake.log[0]):
    dataset = snakemake.params.dataset
    first = Path(snakemake.input[0])
    path = first.parent if len(snakemake.input) > 1 else first
    facts = load_facts(dataset["loader"], path, dataset["limit"])
    write_facts(facts, Path(snakemake.output[0]), {"loader": dataset["loader"]})
