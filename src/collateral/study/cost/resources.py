"""What a job asks of a cluster: main memory, time, a GPU; from the default rates, never from records. Torch-free.

So the same study asks for the same on every machine, and a request changes only with what is known of its sizes: the
shape of a model, the probes of a data set. No job is rerun for a changed request.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from collateral.study.cost.device_rates import CORE_RATES, GPU_RATES, device, seconds
from collateral.study.cost.rule_work import Sizes, place_of, work_of
from collateral.study.design import Study
from collateral.study.jobs import Job

# Recorded jobs of the 135M model held at most 1.2 times what was estimated, see tests/unit/test_needs.py.
MARGIN = 1.5  # factor on a job's estimated memory
SNAKEMAKE = 500e6  # a cluster job holds two Snakemake processes beside its own, each 125 MB; unit: bytes
LIBRARIES = 2.5e9  # ASSUME: main memory of CUDA's libraries in a process that uses them; unit: bytes
LEAST_MEMORY = 1000  # MB
LEAST_MINUTES = 10
NETWORK = 5e6  # ASSUME: a slow download; unit: bytes a second
_STEPS = 100, 5  # requests are whole hundreds of MB and whole five minutes


@dataclass(frozen=True)
class Need:
    """What one job asks for.

    Attributes:
        memory: main memory; unit: MB.
        minutes: wall-clock time.
        gpus: where its model computes on GPUs, how many.
    """

    memory: int
    minutes: int
    gpus: int = 0


# Jobs that load no model: generous, as their time is the network's or grows with the number of checkpoints.
_FIXED = {
    "download": Need(2000, 240),
    "download_text": Need(4000, 240),
    "load_facts": Need(2000, 30),
    "load_training_facts": Need(4000, 30),
    "prepare_benchmark": Need(2000, 30),
    "sample_sequence": Need(1000, 10),
    "screen_collapse": Need(2000, 20),
    "gather": Need(4000, 120),
    "infer": Need(4000, 240),
    "report": Need(4000, 120),
}

# Where a model's shape is not known: enough for one of some hundred million parameters, as (MB, minutes).
_UNSHAPED = {
    "download_model": (8000, 240),
    "sample_contexts": (4000, 30),
    "measure_moments": (8000, 240),
    "probe_known": (4000, 60),
    "measure_reference": (4000, 60),
    "train_hypernetwork": (12000, 1440),
    "edit": (6000, 240),
    "edit_singly": (6000, 240),
    "evaluate_unedited": (6000, 480),
    "evaluate_abilities": (6000, 480),
    "measure_efficacy": (4000, 120),
    "measure_drift": (4000, 60),
    "weigh": (4000, 60),
    "export_checkpoint": (4000, 30),
}


def need_of(job: Job, study: Study, sizes: Sizes) -> Need:
    """Return what a job asks for at its first attempt.

    Memory is that of the process with a margin, and without what lies on a GPU; time is the estimate times the factor
    by which it may be wrong (`rates.Source`).
    """
    if job.rule in _FIXED:
        return _FIXED[job.rule]
    kind, cores, dtype = place_of(job, study)
    gpus = gpus_of(job, study)
    shape, work = sizes.shapes.get(job.model), work_of(job, study, sizes)
    if shape is None or work is None:
        return Need(*_UNSHAPED[job.rule], gpus)
    held = work.host + LIBRARIES if gpus else work.memory
    factor = (GPU_RATES if gpus else CORE_RATES).factor
    minutes = factor * seconds(work, shape, dtype, device(kind, dtype, cores)) / 60
    if job.rule == "download_model":
        minutes += 60 + work.disk / NETWORK / 60
    return Need(
        memory=max(LEAST_MEMORY, _rounded((MARGIN * held + SNAKEMAKE) / 1e6, _STEPS[0])),
        minutes=max(LEAST_MINUTES, _rounded(minutes, _STEPS[1])),
        gpus=gpus,
    )


def gpus_of(job: Job, study: Study) -> int:
    """Return how many GPUs a job computes on: the model's `gpus` where it loads one on a CUDA device, else none."""
    return study.gpu_count(job.model) if place_of(job, study)[0] == "cuda" else 0


def largest(needs: Iterable[Need]) -> Need:
    """Return the most of each that some jobs ask for."""
    found = list(needs)
    return Need(*(max(each) for each in zip(*((n.memory, n.minutes, n.gpus) for n in found), strict=True)))


def _rounded(value: float, step: int) -> int:
    """Return the next multiple of a step that is not below a value."""
    return int(-(-value // step)) * step
