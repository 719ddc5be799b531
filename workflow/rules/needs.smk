# What the rules ask a cluster for, and which jobs share a submission; `collateral.study.cost.estimate` computes how much.

from collateral.runtime.snakemake_internals import group_size, register_group
from collateral.study.jobs import Job
from collateral.study.cost.estimate import count_gpus, compute_need
from collateral.study.cost.study_sizes import read_sizes


# Both bound what runs at a time within one machine or one submission, and not how many submissions run: a cluster
# counts its own GPUs. Jobs of a group run one after another, and so its request is that of its largest job.
resource_scopes:
    gpu="local",
    alone="local",


@functools.cache
def study_sizes():
    """Shapes of the models, items of the suites, probes of the facts: read when the first job asks."""
    try:
        suites = STUDY.names("suites")
        return read_sizes(STUDY, {name: [Path(one) for one in task_folders(name)] for name in suites})
    except CollateralError as error:
        raise WorkflowError(str(error))


@functools.cache  # jobs that differ in their seed alone need the same
def need(job):
    return compute_need(job, STUDY, study_sizes())


def needed(name, wildcards):
    """What a job needs: more for a larger model or more edits, see `collateral.study.cost.estimate`; `name` is its rule."""
    own = {kind: wildcards.get(kind, "") for kind in ("model", "dataset", "suite")}
    editor = wildcards.get("editor", wildcards.get("learner", ""))
    edits, start = int(wildcards.get("edits", 0)), 0
    if edits:  # of a link of a chain, or of a block of the unedited model's probes
        start = previous(wildcards) if editor else list_reference_blocks(edits)[-1][0]
    layers = paths.parse_layers(wildcards.layers) if "layers" in wildcards.keys() else ()
    return need(Job(name, "", editor=editor, start=start, edits=edits, layers=layers, **own))


def asks(name):
    """What the jobs under that name ask a cluster for: memory, minutes, GPUs.

    A job that is tried again asks for more memory and time, twice as much at the second attempt, then three times.
    """
    gpus = {count_gpus(Job(name, "", model), STUDY) for model in STUDY.names("models")}
    return {
        "mem_mb": lambda wildcards, attempt: attempt * needed(name, wildcards).memory,
        "runtime": lambda wildcards, attempt: attempt * needed(name, wildcards).minutes,
        # a function costs Snakemake a tenth of a millisecond a job: only where the models differ
        "gpu": gpus.pop() if len(gpus) == 1 else lambda wildcards: needed(name, wildcards).gpus,
    }


def group_of(kind):
    """The group of a job: its chain, cut into as many checkpoints as the profile's `group-components` says.

    None without such a profile. Pieces of one group that do not hang together are put together up to that number.
    """

    def name(wildcards):
        size = group_size(workflow, kind)
        if size is None:
            return None
        before = STUDY.checkpoints(cell(wildcards)).index(number(wildcards))
        group = "-".join([kind, *map(str, cell(wildcards)), str(before // size)])
        register_group(workflow, group, kind)
        return group

    return name
