"""`collateral why`: why a file would be rebuilt, or that it would not. It runs nothing."""

import argparse
import sys

from collateral.cli.command import Command
from collateral.cli.dry_run import plan_jobs
from collateral.runtime.explain_rerun import LEDGER, explain_jobs, read_ledger
from collateral.study.command_line import add_study_options, read_named_study


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study and the targets."""
    parser.add_argument("targets", nargs="*", help="files or rules; none is the whole study")
    add_study_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the reasons."""
    jobs = plan_jobs(read_named_study(arguments), targets=tuple(arguments.targets))
    text = explain_jobs(jobs, read_ledger(LEDGER))
    targets = " ".join(arguments.targets) or "the study"
    sys.stdout.write(f"{text}\n" if text else f"{targets}: nothing would be rebuilt\n")
    return 0


COMMAND = Command("why", "why a file would be rebuilt", add_options, run)
