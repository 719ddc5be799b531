"""Every name of Snakemake that its documentation does not promise, each with the reason why it is used.

Read on the version in `READ_ON`, to which pyproject.toml pins Snakemake. tests/unit/test_snakemake_internals.py fails
when a name is gone, and when another file of the project uses one. Torch-free.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from collateral.runtime.planned_jobs import PlannedJob

READ_ON = "9.27"


@dataclass(frozen=True)
class Execution:
    """How a workflow is about to be executed.

    Attributes:
        dry: nothing will run.
        touch: only time stamps are renewed.
        local: jobs run on this machine, not on a cluster.
    """

    dry: bool
    touch: bool
    local: bool


def wrap_execution(workflow: Any, enclose: Callable[[Execution], AbstractContextManager[None]]) -> None:
    """Let a context enclose the execution of a workflow, from before its graph is built until it has ended.

    `workflow.execute`, because `onstart` comes too late: after a killed run, outputs that Snakemake has not recorded
    must be set aside before it examines them, and its lock must be released before it takes it. `common_settings` of
    the executor says whether anything will run: a dry run, a summary or a report must not wait for a run.
    """
    execute = workflow.execute

    def run(**arguments: Any) -> Any:
        settings = arguments["executor_plugin"].common_settings
        execution = Execution(settings.dryrun_exec, settings.touch_exec, settings.local_exec)
        with enclose(execution):
            return execute(**arguments)

    workflow.execute = run


def bound_resource(workflow: Any, name: str, count: int) -> None:
    """Let jobs that run at a time use so many units of a resource, unless the command line has set it.

    `workflow.register_resource` and `global_resources`, because `resources:` in the default profile would also bound
    what one job may ask a cluster for, and the profile does not know whether the run is local.
    """
    if name not in workflow.global_resources:
        workflow.register_resource(name, count)


def find_targets(workflow: Any) -> set[str]:
    """Return the targets that the command line names.

    `workflow.dag_settings`, because in `sys.argv` they look like the values of options.
    """
    return set(workflow.dag_settings.targets)


def group_size(workflow: Any, kind: str) -> int | None:
    """Return how many pieces of a kind share a submission, by the profile's `group-components`; None for no group.

    `workflow.group_settings`, because a group's name (the only thing that a rule can choose) must contain the number
    of the block of checkpoints, which follows from this size: Snakemake joins jobs that depend on each other into one
    group however many they are.
    """
    size: int | None = workflow.group_settings.group_components.get(kind)
    return size


def register_group(workflow: Any, name: str, kind: str) -> None:
    """Let the profile's `group-components` for a kind hold for a group with this name.

    `workflow.parent_groupids`: Snakemake fills it for names with wildcards, and not for those from a function.
    """
    workflow.parent_groupids[name] = kind


def find_planned_jobs(workflow: Any) -> list[PlannedJob]:
    """Return the jobs that the graph of a workflow would run, with their reasons.

    `workflow.dag`, `needrun_jobs` and `reason`, because the events of a dry run have the reason in words only, and no
    parameters.
    """
    return [
        _describe(job, workflow.dag.reason(job)) for job in workflow.dag.needrun_jobs(exclude_finished=False)
    ]


def _describe(job: Any, reason: Any) -> PlannedJob:
    return PlannedJob(
        rule=job.rule.name,
        message=job.message or job.rule.name,
        outputs=list(map(str, job.output)),
        missing=sorted(map(str, reason.missing_output)),
        incomplete=sorted(map(str, reason.incomplete_output)),
        changed=sorted(map(str, reason.updated_input - reason.updated_input_run)),
        rebuilt=sorted(map(str, reason.updated_input_run)),
        other_inputs=bool(reason.input_changed),
        other_environment=bool(reason.software_stack_changed),
        forced=bool(reason.forced),
        old=sorted(reason.params_changed.only_old),
        new=sorted(reason.params_changed.only_new),
    )
