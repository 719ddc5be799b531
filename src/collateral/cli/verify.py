"""`collateral verify`: read every artifact of a study's folder, and name what is damaged and what to delete."""

import argparse
import shlex
import sys
from pathlib import Path

from collateral.cli.command import Command
from collateral.errors import CollateralError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="that holds results/ and resources/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print each fault and the command that deletes the damaged files; return 1 where there are any."""
    from collateral.pipeline.verify import verify

    folder: Path = arguments.folder
    if not (folder / "results").is_dir() and not (folder / "resources").is_dir():
        raise CollateralError(f"{folder.resolve()} has neither results nor resources; name a study's folder")
    verified = verify(folder)
    for fault in verified.faults:
        sys.stdout.write(f"{fault.said}\n")
    damaged = sorted({str(fault.delete) for fault in verified.faults if fault.delete})
    if damaged:
        sys.stdout.write(f"\nTo rebuild them, run the workflow after: rm {shlex.join(damaged)}\n")
    sys.stdout.write(f"verify: {verified.files} files, {len(verified.faults)} faults\n")
    return 1 if verified.faults else 0


COMMAND = Command("verify", "find damaged files among a study's results and resources", add_options, run)
