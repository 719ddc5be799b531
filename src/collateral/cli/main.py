"""The command `collateral`: one entry for all that is done beside running the workflow itself."""

import argparse
import sys

from collateral.cli import check, compare, plan, report, stage, verify, why
from collateral.errors import CollateralError

COMMANDS = (
    plan.COMMAND,
    check.COMMAND,
    stage.COMMAND,
    report.COMMAND,
    why.COMMAND,
    verify.COMMAND,
    compare.COMMAND,
)


def main(words: list[str] | None = None) -> None:
    """Run the subcommand that the command line names, and exit with its status; an error is one line.

    Args:
        words: the command line without the program; None is that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="collateral", description="Plan, check, explain and compare studies of knowledge editing."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        command.add_options(subparser)
        subparser.set_defaults(run=command.run)
    arguments = parser.parse_args(words)
    try:
        sys.exit(arguments.run(arguments))
    except CollateralError as error:
        sys.exit(f"{arguments.command}: {error}")
