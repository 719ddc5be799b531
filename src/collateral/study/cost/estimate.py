"""What a study costs before it is started: an estimate a job, and their sums a stage. Torch-free, and pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from collateral.editing.registry import method_names
from collateral.study.cost.device_rates import (
    CORE_RATES,
    ITSELF,
    Calibration,
    Measure,
    Source,
    calibrated,
    device,
    seconds,
)
from collateral.study.cost.rule_work import Sizes, place_of, work_of
from collateral.study.cost.work import Work, weights
from collateral.study.design import Study
from collateral.study.job_records import Record
from collateral.study.jobs import Job


@dataclass(frozen=True)
class Estimate:
    """What one job takes.

    Attributes:
        job: the job.
        kind: cpu or cuda: where it computes.
        cores: that it holds, on a CPU; on a GPU, GPUs.
        seconds: wall-clock time; None where the model's shape is not known.
        source: where the time comes from.
        memory: on the device, or on all its GPUs together; unit: bytes.
        host: in main memory; unit: bytes.
        disk: left behind; unit: bytes.
        checkpoint: of a link of a chain: what the whole edited model would take; unit: bytes.
        waiting: still to do; None where that could not be found out.
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


@dataclass(frozen=True)
class Total:
    """Hours of some jobs, with the bounds that the factors of their sources give.

    Attributes:
        hours: estimated.
        low: if every estimate is too high.
        high: if every estimate is too low.
    """

    hours: float = 0
    low: float = 0
    high: float = 0


def total(estimates: Iterable[Estimate]) -> Total:
    """Return the hours of some jobs of one device kind; those of one group err together, so bounds are added up."""
    hours = low = high = 0.0
    for one in estimates:
        hours, low = hours + one.hours, low + one.hours / one.source.factor
        high += one.hours * one.source.factor
    return Total(hours, low, high)


@dataclass(frozen=True)
class Stage:
    """The jobs of one rule.

    Attributes:
        rule: its name.
        estimates: one a job.
    """

    rule: str
    estimates: Sequence[Estimate]

    @property
    def waiting(self) -> list[Estimate]:
        """Jobs that are still to do; all of them where that could not be found out."""
        return [one for one in self.estimates if one.waiting is not False]

    @property
    def sources(self) -> list[Source]:
        """Where its times come from, the most frequent first."""
        counted = Counter(one.source for one in self.estimates if one.seconds is not None)
        return [source for source, _ in counted.most_common()]

    @property
    def unknown(self) -> list[str]:
        """Models whose shape is not known, so that their jobs are counted and nothing more."""
        return sorted({one.job.model for one in self.estimates if one.seconds is None})


@dataclass(frozen=True)
class Plan:
    """A study's costs.

    Attributes:
        stages: in the order in which they are first needed.
    """

    stages: Sequence[Stage]

    @property
    def estimates(self) -> list[Estimate]:
        """Return all jobs of all stages."""
        return [one for stage in self.stages for one in stage.estimates]

    def longest_chain(self) -> tuple[Job, float] | None:
        """Return the last link of the chain of edits that takes longest, and its seconds: no cluster is faster."""
        chains: dict[tuple[object, ...], float] = {}
        last: dict[tuple[object, ...], Job] = {}
        for one in self.estimates:
            if one.job.rule == "edit" and one.waiting is not False and one.seconds is not None:
                chains[one.job.cell] = chains.get(one.job.cell, 0) + one.seconds
                last[one.job.cell] = one.job
        if not chains:
            return None
        slowest = max(chains, key=lambda cell: chains[cell])
        return last[slowest], chains[slowest]


@dataclass(frozen=True)
class Machine:
    """What is known of the machine.

    Attributes:
        records: recorded jobs, see `rates.read_records`.
        speed: factor on the default rates, by device kind.
    """

    records: Mapping[Job, Record] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)


def make_plan(
    study: Study, jobs: Sequence[Job], sizes: Sizes, machine: Machine, waiting: frozenset[str] | None = None
) -> Plan:
    """Return what a study costs.

    Args:
        study: checked.
        jobs: all of it.
        sizes: shapes, suites and facts, as far as they are known.
        machine: records and speeds.
        waiting: outputs that are still to be made; None if that is not known.
    """
    machine = replace(machine, records=_placed(machine.records, jobs))
    measures = [
        _measure(study, job, sizes, machine, record)
        for job, record in machine.records.items()
        if _is_named(study, job)
    ]
    rates = calibrated(one for one in measures if one is not None)
    stages: dict[str, list[Estimate]] = {}
    for job in jobs:
        stages.setdefault(job.rule, []).append(_estimate(study, job, sizes, machine, rates, waiting))
    return Plan([Stage(rule, estimates) for rule, estimates in stages.items()])


def _placed(records: Mapping[Job, Record], jobs: Sequence[Job]) -> dict[Job, Record]:
    """Return the records with the starts that this study's links have, where it has the same job."""
    ours = {replace(_unplaced(job), start=0): _unplaced(job) for job in jobs}
    return {ours.get(replace(job, start=0), job): record for job, record in records.items()}


def _is_named(study: Study, job: Job) -> bool:
    """Return whether the config still has what a record is about."""
    own = study.settings
    kinds = (("models", job.model), ("datasets", job.dataset), ("editors", job.editor), ("suites", job.suite))
    if any(name and name not in own[kind] for kind, name in kinds):
        return False
    if job.suite and job.suite not in study.names(
        "suites"
    ):  # another study's: its tasks are not counted here
        return False
    if not job.editor:
        return True
    method = own["editors"][job.editor]["method"]
    return method in method_names() and method in {"noop", *own["models"][job.model]["methods"]}


def _default(study: Study, job: Job, sizes: Sizes, machine: Machine, work: Work) -> float:
    kind, cores, dtype = place_of(job, study)
    rates = device(kind, dtype, cores, machine.speed.get(kind, 1))
    return seconds(work, sizes.shapes.get(job.model), dtype, rates)


def _method(study: Study, job: Job) -> str:
    return str(study.settings["editors"][job.editor]["method"]) if job.editor else ""


def _measure(study: Study, job: Job, sizes: Sizes, machine: Machine, record: Record) -> Measure | None:
    work = work_of(job, study, sizes)
    if work is None:
        return None
    kind, _, _ = place_of(job, study)
    estimated = _default(study, job, sizes, machine, work)
    return Measure(job, kind, _method(study, job), record.seconds, estimated)


def _estimate(
    study: Study,
    job: Job,
    sizes: Sizes,
    machine: Machine,
    rates: Calibration,
    waiting: frozenset[str] | None,
) -> Estimate:
    kind, cores, dtype = place_of(job, study)
    left = None if waiting is None else job.output in waiting
    work = work_of(job, study, sizes)
    if work is None:
        return Estimate(job, kind, cores, None, CORE_RATES, waiting=left)
    record = machine.records.get(_unplaced(job))
    if record is not None:
        time, source = record.seconds, ITSELF
    else:
        ratio, source = rates.of(job, kind, _method(study, job))
        time = ratio * _default(study, job, sizes, machine, work)
    host = work.host if kind == "cuda" else work.memory
    if record is not None and record.memory is not None:
        host = 1e6 * record.memory
    memory = work.memory if kind == "cuda" else host
    shape = sizes.shapes.get(job.model)
    whole = weights(shape, dtype) if shape and job.rule == "edit" else 0
    return Estimate(job, kind, cores, time, source, memory, host, work.disk, whole, left)


def _unplaced(job: Job) -> Job:
    """Return a job as a record knows it: without its output, and an evaluation without its start."""
    start = 0 if job.rule == "evaluate_abilities" else job.start
    return replace(job, output="", start=start)
