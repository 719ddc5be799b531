"""Draw the order of the edits."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.data.edit_order import permutation, write_sequence
from collateral.data.facts import read_facts

with job(snakemake.log[0]):
    facts = read_facts(Path(snakemake.input[0]))
    order = permutation(facts, int(snakemake.wildcards.seed), snakemake.params.conflicts)
    write_sequence(order, Path(snakemake.output[0]))
