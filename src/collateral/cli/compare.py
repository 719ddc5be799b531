"""`collateral compare`: two results folders side by side, as one page, and its tables as Parquet and CSV."""

import argparse
import sys
from pathlib import Path

from collateral.cli.command import Command


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the two folders, and where the comparison is written."""
    parser.add_argument("a", type=Path, metavar="A", help="a results folder")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="folder of the page")


def run(arguments: argparse.Namespace) -> int:
    """Compare the folders, and print the summary and where the page is."""
    from collateral.report.pages.comparison import write_comparison

    sys.stdout.write(write_comparison(arguments.a, arguments.b, arguments.out))
    return 0


COMMAND = Command("compare", "set two results folders side by side: B against A", add_options, run)
