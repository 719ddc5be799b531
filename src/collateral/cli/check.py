"""`collateral check`: check a study's config before Snakemake reads it.

Snakemake would run Python that stands in a config, and follow its anchors however large they become.
"""

import argparse

from collateral.cli.command import Command
from collateral.study.command_line import add_study_options, read_named_study


def run(arguments: argparse.Namespace) -> int:
    """Check the study."""
    read_named_study(arguments)
    return 0


COMMAND = Command("check", "check a study's config", add_study_options, run)
