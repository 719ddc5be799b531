"""Explain in words why a file would be made anew, or that it would not. It runs nothing.

Called by `make why TARGET=…`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.runtime.explain_rerun import LEDGER, explained, read_ledger
from collateral.study.command_line import named_study, snakemake_command, study_options

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Explain the targets that the command line names; without one, the whole study."""
    parser = argparse.ArgumentParser(description="Why would a file be made anew?")
    parser.add_argument("targets", nargs="*", help="files or rules; none is the whole study")
    study_options(parser)
    given = parser.parse_args()
    try:
        own, _ = named_study(ROOT, given)
    except CollateralError as error:
        sys.exit(f"why: {error}")
    command = snakemake_command(ROOT, own, given.config, "--cores", "1", "--dry-run")
    environment = {"HF_HUB_OFFLINE": "1", **os.environ}
    done = subprocess.run(
        [*command, "--", *given.targets], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"why: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    said = explained(done.stdout + done.stderr, read_ledger(LEDGER))
    asked = " ".join(given.targets) or "the study"
    sys.stdout.write(f"{said}\n" if said else f"{asked}: nothing would be made anew\n")


if __name__ == "__main__":
    main()
