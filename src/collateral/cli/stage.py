"""`collateral stage`: download all that a study needs a network for, and prove that it suffices.

The proof runs with HF_HUB_OFFLINE=1 and, where the machine allows it, in a network namespace without any interface.
No remaining job downloads anything, each file of the models has its checksum, and configs, tokenizers and tasks load.
"""

import argparse
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from collateral.cli.command import Command
from collateral.cli.dry_run import PlanError, plan_jobs
from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json
from collateral.study.command_line import NamedStudy, add_study_options, read_named_study
from collateral.study.staging import RULES

if TYPE_CHECKING:
    from collateral.study.jobs import Job

HUB_TASKS_MISSING = 3  # exit status of a proof that only lacks what the hub's client caches


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study, and the number of downloads at a time."""
    add_study_options(parser)
    parser.add_argument("--cores", default="1", help="downloads at a time")
    parser.add_argument("--part", choices=["prove", "tasks"], help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Stage the study, and print what was staged and the command that runs it."""
    from collateral.study.jobs import list_jobs

    named = read_named_study(arguments)
    if arguments.part:
        return run_part(arguments.part, named)
    download_files(named, arguments.cores)
    proof = prove_staged(named)
    jobs = list_jobs(named.study, named.task_folders, named.mirror)
    command = shlex.join(["snakemake", "--profile", "profiles/slurm", *named.arguments])
    sys.stdout.write(f"Staged: {format_inventory(jobs)}; {proof}. Next: HF_HUB_OFFLINE=1 {command}\n")
    return 0


def download_files(named: NamedStudy, cores: str) -> None:
    """Run the workflow up to the target `staged`, on this machine whatever profile the user has set.

    Raises:
        CollateralError: a job failed; Snakemake has said why.
    """
    command = named.snakemake("--executor", "local", "--cores", cores, "--quiet", "host", "reason")
    if subprocess.run([*command, "--", "staged"], check=False).returncode:
        raise CollateralError("not everything could be downloaded, see above; run the same command again")


def prove_staged(named: NamedStudy) -> str:
    """Return how it was proven that compute nodes need no network.

    Raises:
        CollateralError: they do; the proof has said what for.
    """
    command = [sys.executable, "-m", "collateral.cli", "stage", *named.arguments]
    isolation = find_isolation()
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    proof = [*isolation, *command, "--part", "prove"]
    status = subprocess.run(proof, check=False, env=offline).returncode
    if status == HUB_TASKS_MISSING:
        subprocess.run([*command, "--part", "tasks"], check=False)
        status = subprocess.run(proof, check=False, env=offline).returncode
    if status:
        raise CollateralError(
            "what was staged does not suffice without a network, see above; run the same command again"
        )
    where = "in a network namespace without any interface" if isolation else "with HF_HUB_OFFLINE=1 only"
    return f"proven {where} that the rest needs no network"


def find_isolation() -> list[str]:
    """Return the command that runs another without a network; nothing where the machine does not allow it."""
    program = shutil.which("unshare")
    for options in (["--net"], ["--map-root-user", "--net"]):
        if program is None:
            break
        if not subprocess.run([program, *options, "true"], capture_output=True, check=False).returncode:
            return [program, *options]
    return []


def run_part(name: str, named: NamedStudy) -> int:
    """Run a part of the proof, in a process without a network, and return its exit status."""
    from collateral.pipeline.check_staged import HubTasksError, check_models, check_tasks

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        if name == "prove":
            check_nothing_left(named)
            check_models(named.study)
        check_tasks(named.study, named.task_folders)
    except HubTasksError as error:
        sys.stderr.write(f"stage: {error}\n")
        return HUB_TASKS_MISSING
    return 0


def check_nothing_left(named: NamedStudy) -> None:
    """Check by a dry run of the whole study that no remaining job downloads or prepares something.

    Raises:
        CollateralError: one does, or the study cannot be planned.
    """
    try:
        left = Counter(job.rule for job in plan_jobs(named, "--executor", "local") if job.rule in RULES)
    except PlanError as error:
        raise CollateralError(
            f"the study cannot be planned without a network; fix what Snakemake says: {error}"
        ) from None
    if left:
        counts = ", ".join(f"{count} of {rule}" for rule, count in left.items())
        raise CollateralError(f"jobs are left that need the network: {counts}; run the same command again")


def format_inventory(jobs: "list[Job]") -> str:
    """Return what was staged, counted, and its bytes."""
    staged = [job for job in jobs if job.rule in RULES]
    size = sum(path.stat().st_size for job in staged for path in list_files(Path(job.output)))

    def count(kind: str, *rules: str) -> list[str]:
        number = sum(job.rule in rules for job in staged)
        return [f"{number} {kind}{'s' * (number != 1)}"] if number else []

    parts = count("model", "download_model")
    parts += count("data set", "load_facts", "load_training_facts")
    parts += count("benchmark split", "prepare_benchmark")
    parts += count("text", "download_text")
    return f"{', '.join(parts)}: {size:,} bytes in resources/"


def list_files(output: Path) -> list[Path]:
    """Return the files that an output stands for: a manifest lists those of its model."""
    if output.name != "manifest.json":
        return [output]
    names = read_sealed_json(output, "a model's manifest")["files"]
    return [output, *(output.parent / name for name in names)]


COMMAND = Command(
    "stage", "download what a study needs a network for, and prove that it suffices", add_options, run
)
