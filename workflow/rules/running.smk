# What comes after all rules: what Snakemake need not find out for each job, and what happens when jobs are about to run.

import atexit
import inspect
import os
import shlex
import sys

from snakemake.common import overwrite_function_params

from collateral.runtime.job import COMMAND, broke_off
from collateral.runtime.explain_rerun import LEDGER, remember
from collateral.runtime.run_lock import only_run


def tell_parameters(rules):
    """Tell Snakemake once what each function of the rules takes: it would look at its signature twice a job."""
    for own in rules:
        for item in [*own.input, *own.params]:
            function = getattr(getattr(item, "_file", item), "callable", item)
            if inspect.isfunction(function):
                overwrite_function_params(function, inspect.signature(function).parameters)


def begins(executor):
    """What is said before jobs run, to them and to the scheduler; False where none will."""
    if executor.dryrun_exec or executor.touch_exec:
        return False
    os.environ[COMMAND] = repeated()  # every job has it in its log
    bound_resources(executor.local_exec)
    return True


def ends():
    """The last word on jobs that failed for good."""
    for job in getattr(workflow.scheduler, "failed", ()):
        for one in broken_off(job):
            logger.error(failure(one))


def bound_resources(local):
    """On one machine, as many GPU jobs at a time as were asked for, else one; on a cluster, one job of a group."""
    if not local:
        workflow.register_resource("alone", 1)
    elif "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", max(map(STUDY.gpu_count, STUDY.names("models"))) or 1)


def broken_off(job):
    """The jobs of a failed group that were at work when it failed; all, where their logs do not say."""
    jobs = list(job) if job.is_group() else [job]
    return [one for one in jobs if broke_off(Path(one.log[0]))] or jobs


def failure(job):
    """What a job that failed for good is told apart by, and the command that repeats it alone."""
    about = ", ".join(f"{name}={value}" for name, value in job.wildcards_dict.items())
    alone = f"{os.environ[COMMAND]} {job.output[0]}"
    return f"Failed for good: {job.rule.name} ({about}); log: {job.log[0]}; alone: {alone}"


def repeated():
    """The command that Snakemake was started with, ready for one more target."""
    given = [word for word in sys.argv[1:] if word not in {"--", *workflow.dag_settings.targets}]
    return shlex.join(["snakemake", *given, "--"])


tell_parameters(workflow.rules)
if workflow.is_main_process:
    SOURCES.save()  # for the processes of its jobs; and at the end, with what single jobs asked for
    atexit.register(SOURCES.save)
    atexit.register(remember, CODES, LEDGER)
    workflow.execute = only_run(workflow.execute, Path.cwd(), begins, ends, WorkflowError)
else:
    workflow.register_resource("alone", 1)
