"""Read every artifact of a study's folder, and name what is damaged and what to delete. It changes nothing.

Called by `make verify`.
"""

import argparse
import shlex
import sys
from pathlib import Path

from collateral.pipeline.verify import verify


def main() -> None:
    """Verify the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Find damaged files among a study's results and resources.")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="that holds results/ and resources/"
    )
    folder = parser.parse_args().folder
    if not (folder / "results").is_dir() and not (folder / "resources").is_dir():
        sys.exit(f"verify: {folder.resolve()} has neither results nor resources; name a study's folder")
    found = verify(folder)
    for fault in found.faults:
        sys.stdout.write(f"{fault.said}\n")
    deleted = sorted({str(fault.delete) for fault in found.faults if fault.delete})
    if deleted:
        sys.stdout.write(f"\nTo make them again, run the workflow after: rm {shlex.join(deleted)}\n")
    sys.stdout.write(f"verify: {found.files} files, {len(found.faults)} faults\n")
    sys.exit(1 if found.faults else 0)


if __name__ == "__main__":
    main()
