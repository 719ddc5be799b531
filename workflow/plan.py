"""Print what a study costs: jobs, hours, memory and disk of each stage. It runs nothing.

Called by `make plan STUDY=…`: merges the configs as Snakemake does, asks Snakemake what is still to do, and leaves
the reckoning to `collateral.study.cost.estimate`.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.study.command_line import mirror, named_study, snakemake_command, study_options, task_folders
from collateral.study.cost.plan_text import describe_plan

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print the plan of the study that the command line names."""
    parser = argparse.ArgumentParser(description="What a study costs before it is started.")
    study_options(parser)
    parser.add_argument(
        "--benchmarks", type=Path, nargs="*", default=[Path("benchmarks")], help="recorded jobs"
    )
    parser.add_argument("--gpu-speed", type=float, default=1, help="of a GPU, in A100s")
    parser.add_argument(
        "--cpu-speed", type=float, default=1, help="of a core, in those of the measured server"
    )
    given = parser.parse_args()
    try:
        sys.stdout.write(planned(given))
    except CollateralError as error:
        sys.exit(f"plan: {error}")


def planned(given: argparse.Namespace) -> str:
    """Return the plan as text."""
    own, study = named_study(ROOT, given)
    waiting, why = outputs_to_make(own, given.config)
    speed = {"cuda": given.gpu_speed, "cpu": given.cpu_speed}
    folders = task_folders(study, ROOT)
    return describe_plan(study, folders, mirror(study, ROOT), given.benchmarks, speed, waiting, why)


def outputs_to_make(own: Path | None, pairs: list[str]) -> tuple[frozenset[str] | None, str]:
    """Return the files that Snakemake would make now; None and its reason where it cannot say."""
    command = snakemake_command(ROOT, own, pairs, "--cores", "1", "--summary")
    offline = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    if done.returncode != 0:
        return None, reason(done.stderr)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    header = next((row for row in rows if row[0] == "output_file"), None)
    if header is None:
        return None, "Snakemake's summary has no table"
    file, plan = header.index("output_file"), header.index("plan")
    body = rows[rows.index(header) + 1 :]
    return frozenset(row[file] for row in body if len(row) == len(header) and row[plan] != "no update"), ""


def reason(text: str) -> str:
    """Return the line of Snakemake's messages that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = re.match(r"\w*(?:Error|Exception)(?: in .*)?:\s*(.*)$", line)
        if found and (found[1] or following):
            return found[1] or following
    return lines[-1] if lines else "Snakemake said nothing"


if __name__ == "__main__":
    main()
