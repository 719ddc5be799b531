"""Draw the order of the edits."""

from pathlib import Path

from collateral.joblog import job
from collateral.facts import read_facts
from collateral.sequences import permutation, write_sequence

with job(snakemake.log[0]):
    facts = read_facts(Path(snakemake.input[0]))
    order = permutation(facts, int(snakemake.wildcards.seed), snakemake.params.conflicts)
    write_sequence(order, Path(snakemake.output[0]))
