"""Set two results folders side by side: one page, and its tables as Parquet and CSV.

Called by `make compare A=… B=…`.
"""

import argparse
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.report.pages.comparison import write_comparison


def main() -> None:
    """Compare the folders that the command line names."""
    parser = argparse.ArgumentParser(description="Two results folders side by side: B against A.")
    parser.add_argument("a", type=Path, metavar="A", help="a results folder")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="folder of the page")
    given = parser.parse_args()
    try:
        sys.stdout.write(write_comparison(given.a, given.b, given.out))
    except CollateralError as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
