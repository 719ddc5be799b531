"""Explain in words why a file would be made anew, or that it would not. It runs nothing.

Called by `make why TARGET=…`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from collateral.reasons import LEDGER, explained, read_ledger

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Explain the targets that the command line names; without one, the whole study."""
    parser = argparse.ArgumentParser(description="Why would a file be made anew?")
    parser.add_argument("targets", nargs="*", help="files or rules; none is the whole study")
    parser.add_argument("--study", default="", help="a name in config/studies; none is the default study")
    parser.add_argument("--configfile", type=Path, help="a study's file elsewhere")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="as Snakemake's")
    given = parser.parse_args()
    own = ROOT / f"config/studies/{given.study}.yaml" if given.study else given.configfile
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--cores",
        "1",
        "-n",
    ]
    command += ["--configfile", str(own)] if own else []
    command += ["--config", *given.config] if given.config else []
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
