"""Read one public format into the one record type."""

from pathlib import Path

from collateral.facts import write_facts
from collateral.joblog import job
from collateral.sources.formats import load_facts

with job(snakemake.log[0]):
    facts = load_facts(snakemake.params.loader, Path(snakemake.params.path), snakemake.params.limit)
    write_facts(facts, Path(snakemake.output[0]), {"loader": snakemake.params.loader})
