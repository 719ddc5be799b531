"""`collateral plan`: what a study costs, stage by stage: jobs, hours, memory and disk. It runs nothing."""

import argparse
import sys
from pathlib import Path

from collateral.cli.command import Command
from collateral.cli.dry_run import PlanError, plan_jobs
from collateral.study.command_line import NamedStudy, add_study_options, read_named_study


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study, and what is known of the machine."""
    add_study_options(parser)
    parser.add_argument(
        "--benchmarks", type=Path, nargs="*", default=[Path("benchmarks")], help="recorded jobs"
    )
    parser.add_argument("--gpu-speed", type=float, default=1, help="of a GPU, in A100s")
    parser.add_argument(
        "--cpu-speed", type=float, default=1, help="of a core, in those of the measured server"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    sys.stdout.write(format_plan(read_named_study(arguments), arguments))
    return 0


def format_plan(named: NamedStudy, arguments: argparse.Namespace) -> str:
    """Return the plan as text."""
    from collateral.study.cost.plan_text import describe_plan

    waiting, reason = None, ""
    try:
        waiting = frozenset(path for job in plan_jobs(named) for path in job.outputs)
    except PlanError as error:
        reason = str(error)
    speed = {"cuda": arguments.gpu_speed, "cpu": arguments.cpu_speed}
    folders, mirror = named.task_folders, named.mirror
    return describe_plan(named.study, folders, mirror, arguments.benchmarks, speed, waiting, reason)


COMMAND = Command("plan", "what a study costs before it is started", add_options, run)
