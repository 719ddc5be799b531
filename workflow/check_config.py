"""Check a study's config before Snakemake reads it, which would run Python in it, and follow it however large it is.

Called by `make run`.
"""

import argparse
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.studyconfig import read_study, study_file

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Check the study that the command line names."""
    parser = argparse.ArgumentParser(description="Check a study's config.")
    parser.add_argument("--study", default="", help="a name in config/studies; none is the default study")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="as Snakemake's")
    given = parser.parse_args()
    try:
        read_study(ROOT, study_file(ROOT, given.study) if given.study else None, given.config)
    except CollateralError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
