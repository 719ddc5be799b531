"""Gather all results into tidy tables."""

from pathlib import Path

from collateral import tables
from collateral.joblog import job
from collateral.taskfolders import task_metadata

with job(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params

    paths = {name: [Path(path) for path in given.get(name, [])] for name in given.keys()}  # noqa: SIM118

    about = {
        suite: {
            name: task_metadata(name, [Path(folder) for folder in params.folders[suite]]) for name in names
        }
        for suite, names in params.suites.items()
    }
    tables.write_tables(
        {
            "abilities": tables.abilities(paths["abilities"], about),
            "ability-items": tables.items(paths["samples"]),
            "efficacy": tables.efficacy(paths["efficacy"], paths["after_edit"], paths["reference"]),
            "edits": tables.stacked(paths["edits"]),
            "weights": tables.stacked(paths["weights"]),
            "drift": tables.stacked(paths["drift"]),
            "heatmaps": tables.stacked(paths["heatmaps"]),
            "single-weights": tables.stacked(paths["singles"]),
            "objectives": tables.objectives(paths["reference"], paths["facts"]),
            "known": tables.known_share(paths["known"]),
        },
        Path(snakemake.output[0]).parent,
    )
