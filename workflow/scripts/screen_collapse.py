"""Say whether a chain of edits has collapsed by one checkpoint."""

from pathlib import Path

from collateral.runtime.job import job
from collateral.analysis.tables import collapse
from collateral.analysis.tables import collect as tables
from collateral.io.atomic import read_sealed_json, write_json
from collateral.tasks.registry import suite_metadata

with job(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    previous = read_sealed_json(Path(str(given.previous)), "a verdict") if given.get("previous") else None
    found = collapse.judge_chain(
        tables.collect_abilities(
            [Path(path) for path in given.results], suite_metadata(params.suites, params.folders)
        ),
        tables.collect_items([Path(path) for path in given.samples]),
        previous,
        int(snakemake.wildcards.edits),
        params.settings,
    )
    write_json(Path(snakemake.output[0]), found)
