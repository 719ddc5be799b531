"""How fast a machine is: default rates a device kind, and what recorded benchmarks make of them. Torch-free."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from collateral.study.cost.model_shape import Shape
from collateral.study.cost.work import Work
from collateral.study.dtypes import WIDTH
from collateral.study.jobs import Job


@dataclass(frozen=True)
class Device:
    """One core or one accelerator.

    Attributes:
        flops: arithmetic that passes of a model achieve; unit: FLOP/s.
        double: the same in float64; unit: FLOP/s.
        bandwidth: bytes of weights that are read in a second.
        latency: least time of one pass through one layer; unit: seconds.
    """

    flops: float
    double: float
    bandwidth: float
    latency: float


# Measured: SmolLM2-135M in float32 achieves 30 to 52 GFLOP/s on a core of an AMD EPYC server in the value
# optimisation.
CORE = Device(flops=50e9, double=15e9, bandwidth=8e9, latency=0.5e-3)
# From the literature, for one A100-class GPU: its peak is 19.5 (float32), 312 (16 bits) and 9.7 TFLOP/s (float64).
# Second moments of GPT-J over 44 M tokens took 36 to 40 hours in float32 on an A6000 (4 TFLOP/s); ROME on LLaMA-7B
# 7 s an edit in float16. Small batches leave most of a GPU idle: a layer's pass has about 15 kernels to launch.
GPU = {
    "float32": Device(flops=8e12, double=5e12, bandwidth=1e12, latency=0.5e-3),
    "bfloat16": Device(flops=60e12, double=5e12, bandwidth=1e12, latency=0.5e-3),
    "float16": Device(flops=60e12, double=5e12, bandwidth=1e12, latency=0.5e-3),
}


def device(kind: str, dtype: str, threads: int = 1, speed: float = 1) -> Device:
    """Return the default rates of a job's device.

    Args:
        kind: cpu or cuda.
        dtype: of the model.
        threads: of the job, on a CPU.
        speed: factor on all of it, for a machine that is known to be faster.
    """
    own = GPU[dtype] if kind == "cuda" else CORE
    times = speed * (1 if kind == "cuda" else threads)
    return Device(own.flops * times, own.double * times, own.bandwidth * speed, own.latency / speed)


def seconds(work: Work, shape: Shape | None, dtype: str, machine: Device) -> float:
    """Return the time of a job: its start, and each pass as the slowest of arithmetic, reading weights, launching."""
    total = work.start + work.products / machine.double
    if shape is None:
        return total
    for one in work.passes:
        width = WIDTH[dtype]
        layer = max(
            2 * one.tokens * shape.layer / machine.flops,
            shape.layer * width / machine.bandwidth,
            machine.latency,
        )
        head = max(2 * one.reads * shape.head / machine.flops, shape.head * width / machine.bandwidth)
        total += one.count * one.cost * (one.layers * layer + (head if one.reads else 0))
    return total


class Source(NamedTuple):
    """Where a time comes from: rank (0 is the surest), words, and the factor by which it may be wrong."""

    rank: int
    words: str
    factor: float


ITSELF = Source(0, "this job's own record", 1.1)
SAME = Source(1, "measured here: same rule, model and editor or suite", 1.5)
LIKE = Source(2, "measured here: same rule and model", 2.0)
SCALED = Source(3, "scaled by arithmetic from another model", 3.0)
CORE_RATES = Source(4, "default rates of one core, measured with a model of 135M on a server", 3.0)
GPU_RATES = Source(4, "default rates of one A100-class GPU, from the literature", 5.0)


@dataclass(frozen=True)
class Measure:
    """One recorded job beside what the default rates make of it; both in seconds."""

    job: Job
    kind: str
    method: str
    recorded: float
    estimated: float


@dataclass(frozen=True)
class Calibration:
    """Recorded over estimated time, for groups of jobs that are ever less alike."""

    ratios: Mapping[tuple[str, ...], float]

    def of(self, job: Job, kind: str, method: str) -> tuple[float, Source]:
        """Return the factor on the default estimate of a job that has no record, and where it comes from."""
        for key, source in zip(_keys(job, kind, method), (SAME, LIKE, SCALED), strict=True):
            if key in self.ratios:
                return self.ratios[key], source
        return 1.0, GPU_RATES if kind == "cuda" else CORE_RATES


def calibrated(measures: Iterable[Measure]) -> Calibration:
    """Return what recorded jobs make of the rates: in each group the ratio of sums, so that long jobs decide."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for one in measures:
        for key in _keys(one.job, one.kind, one.method):
            both = sums.setdefault(key, [0.0, 0.0])
            both[0] += one.recorded
            both[1] += one.estimated
    return Calibration({key: recorded / estimated for key, (recorded, estimated) in sums.items()})


# Rules that do the same work on other files share their records.
_FAMILY = {"edit_singly": "edit", "evaluate_unedited": "evaluate_abilities"}


def _keys(job: Job, kind: str, method: str) -> tuple[tuple[str, ...], ...]:
    """Return the groups that a job belongs to, the narrowest first."""
    rule = _FAMILY.get(job.rule, job.rule)
    what = method if rule == "edit" else job.suite
    return (rule, kind, job.model, what), (rule, kind, job.model), (rule, kind)
