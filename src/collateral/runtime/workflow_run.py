"""What a run adds to Snakemake: one run per folder, kept results, bounds, a last word on failures. Torch-free.

workflow/rules/running.smk calls it.
"""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from collateral.runtime.job import COMMAND
from collateral.errors import CollateralError
from collateral.runtime.job_cache import drop_recorded, hash_names
from collateral.runtime.job_events import JobEvents, StartedJob
from collateral.runtime.planned_jobs import PLAN, write_plan
from collateral.runtime.run_lock import hold_run
from collateral.runtime.snakemake_internals import (
    Execution,
    bound_resource,
    find_planned_jobs,
    find_targets,
    wrap_execution,
)


def guard_workflow(workflow: Any, logger: logging.Logger, gpus: int) -> None:
    """Let each execution of a workflow be the only run of its folder, and a dry run write its plan where asked to.

    Args:
        workflow: Snakemake's object of that name in a Snakefile.
        logger: likewise.
        gpus: that one job may need: without `--resources gpu=…`, as many are used at a time on this machine.
    """

    @contextmanager
    def enclose(execution: Execution) -> Iterator[None]:
        if execution.dry:
            yield
            if PLAN in os.environ:
                write_plan(find_planned_jobs(workflow), Path(os.environ[PLAN]))
        elif execution.touch:
            yield
        else:
            with _run(workflow, logger, gpus, execution.local):
                yield

    wrap_execution(workflow, enclose)


@contextmanager
def _run(workflow: Any, logger: logging.Logger, gpus: int, local: bool) -> Iterator[None]:
    os.environ[COMMAND] = format_command(sys.argv[1:], find_targets(workflow))  # every job has it in its log
    bound_resource(workflow, "gpu" if local else "alone", gpus if local else 1)
    recorded: set[str] = set()

    def record(outputs: list[str]) -> None:
        recorded.add(hash_names(outputs))
        drop_recorded(recorded)

    events = JobEvents(record)
    logger.addHandler(events)
    try:
        with hold_run(Path.cwd(), remote=not local):
            yield
    except CollateralError as error:
        raise WorkflowError(str(error)) from None
    finally:
        logger.removeHandler(events)
        for job in events.find_failed():
            logger.error(describe_failure(job))


def format_command(words: Sequence[str], targets: set[str]) -> str:
    """Return the command that Snakemake was started with, ready for one more target."""
    return shlex.join(["snakemake", *(word for word in words if word not in {"--", *targets}), "--"])


def describe_failure(job: StartedJob) -> str:
    """Return what identifies a job that failed for good, and the command that repeats it alone."""
    wildcards = ", ".join(f"{name}={value}" for name, value in job.wildcards.items())
    command = f"{os.environ[COMMAND]} {job.outputs[0]}"
    return f"Failed for good: {job.rule} ({wildcards}); log: {job.log}; alone: {command}"
