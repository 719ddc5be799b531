"""What each job of a study takes, by default rates and by recorded jobs, and what it asks a cluster for. Torch-free.

A request follows from the default rates alone, so that the same study asks for the same on every machine. No job is
rerun for a changed request.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from collateral.editing.registry import method_names
from collateral.study.cost.rule_work import compute_work
from collateral.study.cost.study_sizes import Sizes
from collateral.study.cost.work import LIGHT, Need, find_device
from collateral.study.design import Study
from collateral.study.dtypes import WIDTH
from collateral.study.job_records import Record
from collateral.study.jobs import Job


class Source(NamedTuple):
    """Where a time comes from: a letter in the plan's table, words, and the factor by which it may be wrong."""

    mark: str
    words: str
    factor: float


ITSELF = Source("r", "this job's own record", 1.1)
SAME = Source("m", "measured here: same rule, model and editor or suite", 1.5)
LIKE = Source("l", "measured here: same rule and model", 2.0)
SCALED = Source("s", "scaled by arithmetic from another model", 3.0)
CORE_RATES = Source("c", "default rates of one core, measured with a model of 135M on a server", 3.0)
GPU_RATES = Source("g", "default rates of one A100-class GPU, from the literature", 5.0)
SOURCES = (ITSELF, SAME, LIKE, SCALED, CORE_RATES, GPU_RATES)


@dataclass(frozen=True)
class Estimate:
    """What one job takes.

    Attributes:
        job: the job.
        kind: cpu or cuda: where it computes.
        cores: that it holds, on a CPU; on GPUs, their number.
        seconds: wall-clock time; None where the model's shape is not known.
        source: where the time comes from.
        memory: on the device, or on all its GPUs together; unit: bytes.
        host: in main memory; unit: bytes.
        disk: left behind; unit: bytes.
        checkpoint: of a link of a chain: what the whole edited model would take; unit: bytes.
        waiting: still to do; None where Snakemake could not say.
    """

    job: Job
    kind: str
    cores: int
    seconds: float | None
    source: Source
    memory: float = 0
    host: float = 0
    disk: float = 0
    checkpoint: float = 0
    waiting: bool | None = None

    @property
    def hours(self) -> float:
        """Core hours, or GPU hours."""
        return (self.seconds or 0) * self.cores / 3600


def estimate_jobs(
    study: Study,
    jobs: Sequence[Job],
    sizes: Sizes,
    records: Mapping[Job, Record] | None = None,
    speed: Mapping[str, float] | None = None,
    waiting: frozenset[str] | None = None,
) -> list[Estimate]:
    """Return what each job of a study takes.

    Args:
        study: checked.
        jobs: all of it.
        sizes: shapes, suites and facts, as far as they are known.
        records: recorded jobs, see `job_records.read_records`.
        speed: factor on the default rates, by device kind.
        waiting: outputs that are still to be made; None if that is not known.
    """
    speed = speed or {}
    known = {_recorded_as(job): job for job in jobs}
    recorded = {known.get(_recorded_as(job), job): record for job, record in (records or {}).items()}
    sums: dict[tuple[str, ...], tuple[float, float]] = {}  # recorded and default seconds of a group of jobs
    for job, record in recorded.items():
        if _is_named(job, study) and _is_known(job, sizes):
            seconds = compute_work(job, study, sizes, speed.get(find_device(job, study)[0], 1)).seconds
            for group in _groups(job, study):
                total = sums.get(group, (0.0, 0.0))
                sums[group] = (total[0] + record.seconds, total[1] + seconds)

    estimates = []
    for job in jobs:
        kind, cores, dtype = find_device(job, study)
        left = None if waiting is None else job.output in waiting
        if not _is_known(job, sizes):
            estimates.append(Estimate(job, kind, cores, None, CORE_RATES, waiting=left))
            continue
        work = compute_work(job, study, sizes, speed.get(kind, 1))
        seconds, host, source = work.seconds, work.host, GPU_RATES if kind == "cuda" else CORE_RATES
        for group, like in zip(_groups(job, study), (SAME, LIKE, SCALED), strict=True):
            if group in sums:
                seconds, source = seconds * sums[group][0] / sums[group][1], like
                break
        if job in recorded:
            seconds, source = recorded[job].seconds, ITSELF
            host = 1e6 * (recorded[job].memory or host / 1e6)
        memory = work.memory if kind == "cuda" else host
        whole = sizes.shape(job.model).parameters * WIDTH[dtype] if job.rule == "edit" else 0
        estimates.append(Estimate(job, kind, cores, seconds, source, memory, host, work.disk, whole, left))
    return estimates


def _is_known(job: Job, sizes: Sizes) -> bool:
    return job.rule in LIGHT or sizes.shapes.get(job.model) is not None


def _recorded_as(job: Job) -> Job:
    """Return a job as a record knows it: without its output and the start of its link."""
    return replace(job, output="", start=0)


def _is_named(job: Job, study: Study) -> bool:
    """Return whether the config has what a record is about, and the study its suite, whose tasks are counted."""
    settings = study.settings
    if job.model not in settings["models"] or job.suite not in {"", *study.names("suites")}:
        return False
    if job.dataset not in {"", *settings["datasets"]} or job.editor not in {"", *settings["editors"]}:
        return False
    method, configured = _method(job, study), settings["models"][job.model]["methods"]
    return method in {"", "noop"} or (method in configured and method in method_names())


def _method(job: Job, study: Study) -> str:
    return str(study.settings["editors"][job.editor]["method"]) if job.editor else ""


def _groups(job: Job, study: Study) -> list[tuple[str, ...]]:
    """Return the groups of jobs with comparable times that a job belongs to, the narrowest first."""
    rule = {"edit_singly": "edit", "evaluate_unedited": "evaluate_abilities"}.get(job.rule, job.rule)
    widest, detail = (rule, find_device(job, study)[0]), _method(job, study) if rule == "edit" else job.suite
    return [(*widest, job.model, detail), (*widest, job.model), widest]


# Recorded jobs of the 135M model held at most 1.2 times what was estimated, see tests/unit/test_cluster_requests.py.
MARGIN = 1.5  # factor on a job's estimated memory
SNAKEMAKE = 500e6  # a cluster job holds two Snakemake processes beside its own, each 125 MB; unit: bytes
LIBRARIES = 2.5e9  # ASSUME: main memory of CUDA's libraries in a process that uses them; unit: bytes
LEAST = Need(memory=1000, minutes=10)
NETWORK = 5e6  # ASSUME: a slow download; unit: bytes a second


def compute_need(job: Job, study: Study, sizes: Sizes) -> Need:
    """Return what a job asks for at its first attempt.

    Memory is that of the process with a margin, and without what lies on a GPU; time is the estimate times the factor
    by which it may be wrong.
    """
    if job.rule in LIGHT:
        return LIGHT[job.rule][1]
    gpus, work = count_gpus(job, study), compute_work(job, study, sizes)
    memory = MARGIN * (work.host + (LIBRARIES if gpus else 0)) + SNAKEMAKE
    minutes = (GPU_RATES if gpus else CORE_RATES).factor * work.seconds / 60
    if job.rule == "download_model":
        minutes += 60 + work.disk / NETWORK / 60
    # whole hundreds of MB, whole five minutes
    asked = Need(100 * math.ceil(memory / 100e6), 5 * math.ceil(minutes / 5), gpus)
    return take_largest([asked, LEAST])


def count_gpus(job: Job, study: Study) -> int:
    """Return how many GPUs a job computes on: the model's `gpus` where it loads one on a CUDA device, else none."""
    return study.gpu_count(job.model) if find_device(job, study)[0] == "cuda" else 0


def take_largest(needs: Iterable[Need]) -> Need:
    """Return the most of each that some jobs ask for."""
    return Need(*map(max, zip(*needs, strict=True)))
