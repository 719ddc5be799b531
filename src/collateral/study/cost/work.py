"""What a job computes, holds and writes, and how long a machine takes for it by default rates. Torch-free."""

from dataclasses import dataclass
from typing import NamedTuple

from collateral.study.cost.model_shape import Shape
from collateral.study.dtypes import WIDTH


@dataclass(frozen=True)
class Pass:
    """Some passes of a batch of tokens through layers of the model.

    Attributes:
        count: number of passes.
        layers: that each runs through.
        tokens: in a batch.
        cost: forward passes that it costs: 1, 2 with a backward pass to the activations, 3 to the weights too.
        reads: positions that are projected on the vocabulary.
    """

    count: float
    layers: float
    tokens: float
    cost: float = 1
    reads: float = 0


@dataclass(frozen=True)
class Work:
    """What one job takes.

    Attributes:
        start: what it takes in any case (processes, imports, reading the model); unit: seconds on a CPU core.
        passes: of the model.
        products: dense algebra in float64; unit: FLOP.
        memory: most that it holds on the model's device; unit: bytes.
        host: most that it holds in main memory, where the device is a GPU; unit: bytes.
        disk: that it leaves behind; unit: bytes.
    """

    start: float
    passes: tuple[Pass, ...] = ()
    products: float = 0
    memory: float = 0
    host: float = 0
    disk: float = 0


class Need(NamedTuple):
    """What one job asks a cluster for.

    Attributes:
        memory: main memory; unit: MB.
        minutes: wall-clock time.
        gpus: where its model computes on GPUs, how many.
    """

    memory: int
    minutes: int
    gpus: int = 0


class Device(NamedTuple):
    """One core or one GPU.

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
# optimization.
CORE = Device(flops=50e9, double=15e9, bandwidth=8e9, latency=0.5e-3)
# From the literature, for one A100-class GPU: its peak is 19.5 (float32), 312 (16 bits) and 9.7 TFLOP/s (float64).
# Second moments of GPT-J over 44 M tokens took 36 to 40 hours in float32 on an A6000 (4 TFLOP/s); ROME on LLaMA-7B
# 7 s an edit in float16. Small batches leave most of a GPU idle: a layer's pass has about 15 kernels to launch.
GPU = Device(flops=60e12, double=5e12, bandwidth=1e12, latency=0.5e-3)
GPU_FLOAT32 = 8e12  # FLOP/s


def default_seconds(work: Work, shape: Shape, kind: str, dtype: str, cores: int, speed: float = 1) -> float:
    """Return the time of a job by default rates: its start, its dense algebra, and each pass.

    A pass takes as long as the slowest of arithmetic, reading weights and launching kernels.

    Args:
        work: of the job.
        shape: of its model; any where it runs none.
        kind: cpu or cuda.
        dtype: of the model.
        cores: that compute together on a CPU; GPUs of one model compute one after another.
        speed: factor on the rates, for a machine that is known to be faster.
    """
    device, parallel = (GPU, speed) if kind == "cuda" else (CORE, speed * cores)
    flops = parallel * (GPU_FLOAT32 if device is GPU and dtype == "float32" else device.flops)
    bandwidth, latency, width = speed * device.bandwidth, device.latency / speed, WIDTH[dtype]
    total = work.start + work.products / (parallel * device.double)
    for step in work.passes:
        layer = max(2 * step.tokens * shape.layer / flops, shape.layer * width / bandwidth, latency)
        head = max(2 * step.reads * shape.head / flops, shape.head * width / bandwidth) if step.reads else 0
        total += step.count * step.cost * (step.layers * layer + head)
    return total
