"""Bring everything that a study needs a network for, and prove that it suffices.

Called by `make stage STUDY=…` where there is a network. The proof runs with HF_HUB_OFFLINE=1 and, where the machine
allows it, in a network namespace without any interface: no job that is left brings anything, every file of the models
has its checksum, and configs, tokenizers and tasks load.
"""

import argparse
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json
from collateral.study.command_line import (
    mirror,
    named_study,
    snakemake_command,
    snakemake_study,
    study_options,
    task_folders,
)
from collateral.study.design import Study
from collateral.study.jobs import Job, study_jobs
from collateral.study.staging import RULES

ROOT = Path(__file__).parents[1]
TASKS_OF_THE_HUB = 3  # exit status of a proof that only lacks what the hub's client keeps


def main() -> None:
    """Stage the study that the command line names."""
    parser = argparse.ArgumentParser(description="Bring what a study needs a network for.")
    study_options(parser)
    parser.add_argument("--cores", default="1", help="downloads at a time")
    parser.add_argument("--part", choices=["prove", "tasks"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        own, study = named_study(ROOT, given)
        if given.part:
            sys.exit(part(given.part, study, own, given.config))
        bring(own, given.config, given.cores)
        how = prove(given)
        jobs = study_jobs(study, task_folders(study, ROOT), mirror(study, ROOT))
    except CollateralError as error:
        sys.exit(f"stage: {error}")
    command = shlex.join(["snakemake", "--profile", "profiles/slurm", *snakemake_study(own, given.config)])
    sys.stdout.write(f"Staged: {inventory(jobs)}; {how}. Next: HF_HUB_OFFLINE=1 {command}\n")


def snakemake(own: Path | None, pairs: list[str], *more: str) -> list[str]:
    """Return a command of Snakemake on this machine, whatever profile the user has set."""
    return snakemake_command(ROOT, own, pairs, "--executor", "local", *more)


def bring(own: Path | None, pairs: list[str], cores: str) -> None:
    """Run the workflow up to the target `staged`.

    Raises:
        CollateralError: a job failed; Snakemake has said why.
    """
    command = snakemake(own, pairs, "--cores", cores, "--quiet", "host", "reason")
    if subprocess.run([*command, "--", "staged"], check=False).returncode:
        raise CollateralError("not everything could be brought, see above; run the same command again")


def prove(given: argparse.Namespace) -> str:
    """Return how it was proven that compute nodes need no network.

    Raises:
        CollateralError: they do; the proof has said what for.
    """
    command = [sys.executable, __file__, "--study", given.study]
    command += ["--configfile", str(given.configfile)] if given.configfile else []
    command += ["--config", *given.config] if given.config else []
    alone = without_network()
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    proof = [*alone, *command, "--part", "prove"]
    status = subprocess.run(proof, check=False, env=offline).returncode
    if status == TASKS_OF_THE_HUB:
        subprocess.run([*command, "--part", "tasks"], check=False)
        status = subprocess.run(proof, check=False, env=offline).returncode
    if status:
        raise CollateralError(
            "what was staged does not suffice without a network, see above; run the same command again"
        )
    where = "in a network namespace without any interface" if alone else "with HF_HUB_OFFLINE=1 only"
    return f"proven {where} that the rest needs no network"


def without_network() -> list[str]:
    """Return the command that runs another without a network; nothing where the machine does not allow it."""
    program = shutil.which("unshare")
    for options in (["--net"], ["--map-root-user", "--net"]):
        if program is None:
            break
        if not subprocess.run([program, *options, "true"], capture_output=True, check=False).returncode:
            return [program, *options]
    return []


def part(name: str, study: Study, own: Path | None, pairs: list[str]) -> int:
    """Run a part of this program in a process of its own, and return its exit status."""
    from collateral.pipeline.check_staged import HubTasksError, prove_models, prove_tasks

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    folders = task_folders(study, ROOT)
    try:
        if name == "prove":
            nothing_left(own, pairs)
            prove_models(study)
        prove_tasks(study, folders)
    except HubTasksError as error:
        sys.stderr.write(f"stage: {error}\n")
        return TASKS_OF_THE_HUB
    return 0


def nothing_left(own: Path | None, pairs: list[str]) -> None:
    """Check by a dry run of the whole study that no job is left that brings something.

    Raises:
        CollateralError: there is one, or the study cannot be planned.
    """
    command = snakemake(own, pairs, "--cores", "1", "--dry-run", "--quiet", "rules")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode:
        raise CollateralError(
            f"the study cannot be planned without a network; mend what Snakemake says: {text.strip()[-2000:]}"
        )
    table = text.partition("Job stats:")[2].partition("\n\n")[0]
    left = {rule: count for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M) if rule in RULES}
    if left:
        told = ", ".join(f"{count} of {rule}" for rule, count in left.items())
        raise CollateralError(f"jobs are left that bring something: {told}; run the same command again")


def inventory(jobs: list[Job]) -> str:
    """Return what lies there, counted, and its bytes."""
    brought = [job for job in jobs if job.rule in RULES]
    size = sum(path.stat().st_size for job in brought for path in files(Path(job.output)))

    def counted(kind: str, *rules: str) -> list[str]:
        number = sum(job.rule in rules for job in brought)
        return [f"{number} {kind}{'s' * (number != 1)}"] if number else []

    parts = counted("model", "download_model")
    parts += counted("data set", "load_facts", "load_training_facts")
    parts += counted("benchmark split", "prepare_benchmark")
    parts += counted("text", "download_text")
    return f"{', '.join(parts)}: {size:,} bytes in resources/"


def files(output: Path) -> list[Path]:
    """Return the files that an output stands for: a manifest lists those of its model."""
    if output.name != "manifest.json":
        return [output]
    return [
        output,
        *(output.parent / name for name in read_sealed_json(output, "a model's manifest")["files"]),
    ]


if __name__ == "__main__":
    main()
