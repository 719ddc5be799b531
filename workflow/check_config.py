"""Check a study's config before Snakemake reads it, which would run Python in it, and follow it however large it is.

Called by `make run`.
"""

import argparse
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.study.command_line import named_study, study_options

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Check the study that the command line names."""
    parser = argparse.ArgumentParser(description="Check a study's config.")
    study_options(parser)
    given = parser.parse_args()
    try:
        named_study(ROOT, given)
    except CollateralError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
