"""Gather all results into tidy tables."""

from pathlib import Path

from collateral import collapse, tables
from collateral.joblog import job
from collateral.taskfolders import suite_metadata

with job(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params

    paths = {name: [Path(path) for path in given.get(name, [])] for name in given.keys()}  # noqa: SIM118

    scores = tables.abilities(paths["abilities"], suite_metadata(params.suites, params.folders))
    items = tables.items(paths["samples"])
    skipped = tables.skipped(paths["abilities"])
    tables.write_tables(
        {
            "abilities": scores,
            "ability-items": items,
            "collapses": collapse.collapses(scores, items, skipped, params.collapse),
            "efficacy": tables.efficacy(paths["efficacy"], paths["after_edit"], paths["reference"]),
            "edits": tables.stacked(paths["edits"]),
            "weights": tables.stacked(paths["weights"]),
            "heatmaps": tables.stacked(paths["heatmaps"]),
            "single-weights": tables.stacked(paths["singles"]),
            "objectives": tables.objectives(paths["reference"], paths["facts"]),
            "known": tables.known_share(paths["known"]),
        },
        Path(snakemake.output[0]).parent,
    )
