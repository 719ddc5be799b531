"""The jobs of a study that Snakemake would run now, from a dry run."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from collateral.errors import CollateralError
from collateral.runtime.planned_jobs import PLAN, PlannedJob, read_plan
from collateral.study.command_line import NamedStudy


class PlanError(CollateralError):
    """Snakemake cannot plan the study; the message is its own."""


def plan_jobs(named: NamedStudy, *options: str, targets: tuple[str, ...] = ()) -> list[PlannedJob]:
    """Return the jobs that a run of the study would consist of.

    Args:
        named: the study.
        options: further ones of Snakemake.
        targets: files or rules; none is the whole study.

    Raises:
        PlanError: Snakemake refuses.
    """
    quiet = ("--dry-run", "--quiet", "rules", "progress")
    command = [*named.snakemake("--cores", "1", *quiet, *options), "--", *targets]
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        environment = {"HF_HUB_OFFLINE": "1", **os.environ, PLAN: str(plan)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode or not plan.is_file():
            raise PlanError(find_reason(done.stdout + done.stderr))
        return read_plan(plan)


def find_reason(text: str) -> str:
    """Return the line of Snakemake's messages that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = re.match(r"\w*(?:Error|Exception)(?: in .*)?:\s*(.*)$", line)
        if match and (match[1] or following):
            return match[1] or following
    return lines[-1] if lines else "Snakemake printed nothing"
