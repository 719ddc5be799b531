"""What a job takes: time by default rates of a core or a GPU, memory, bytes on disk. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from collateral.study.cost.model_shape import Shape
from collateral.study.cost.study_sizes import Sizes
from collateral.study.design import Study
from collateral.study.dtypes import WIDTH
from collateral.study.jobs import Job


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


class Work(NamedTuple):
    """What one job takes.

    Attributes:
        seconds: wall-clock time by default rates.
        memory: most that it holds on the device that computes; unit: bytes.
        host: most that it holds in main memory; unit: bytes.
        disk: that it leaves behind; unit: bytes.
    """

    seconds: float
    memory: float
    host: float
    disk: float


class Device(NamedTuple):
    """One core or one GPU.

    Attributes:
        flops: arithmetic that passes of a model achieve, in 16 bits on a GPU; unit: FLOP/s.
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

# ASSUME: tokens of a prompt with its context and target: zsRE's and CounterFact's have 9 to 12, a context up to 10.
PROMPT = 16
# Measured on a CPU (SmolLM2-135M): resident memory of a process that has imported torch and transformers. From the
# literature: device memory that CUDA itself takes. Unit: bytes.
PROCESS = 0.6e9

# ASSUME: what jobs without a model take on a CPU core, from a study of the 135M model, and what they ask a cluster
# for: generous, as their time is the network's or grows with the number of checkpoints.
LIGHT = {
    "download": (Work(2, 0.3e9, 0.3e9, 5e6), Need(2000, 240)),
    "download_text": (Work(10, 0.3e9, 0.3e9, 8e6), Need(4000, 240)),
    "load_facts": (Work(2, 0.3e9, 0.3e9, 2e6), Need(2000, 30)),
    "load_training_facts": (Work(2, 0.3e9, 0.3e9, 2e6), Need(4000, 30)),
    "prepare_benchmark": (Work(2, 0.3e9, 0.3e9, 1e6), Need(2000, 30)),
    "sample_sequence": (Work(2, 0.3e9, 0.3e9, 0.1e6), Need(1000, 10)),
    "screen_collapse": (Work(3, 0.3e9, 0.3e9, 1e3), Need(2000, 20)),
    "gather": (Work(6, 0.6e9, 0.6e9, 2e6), Need(4000, 120)),
    "infer": (Work(15, 0.6e9, 0.6e9, 1e6), Need(4000, 240)),
    "report": (Work(25, 0.6e9, 0.6e9, 4e6), Need(4000, 120)),
}
_ON_CPU = {*LIGHT, "download_model", "weigh", "export_checkpoint"}  # no model is loaded on its device


def find_device(job: Job, study: Study) -> tuple[str, int, str]:
    """Return device kind (cpu or cuda), cores or GPUs, and dtype of a job."""
    threads: int = study.settings["runtime"]["threads"]
    if job.rule in _ON_CPU:
        return "cpu", threads if job.rule == "weigh" else 1, "float32"
    model = study.settings["models"][job.model]
    return model["device"].partition(":")[0], study.gpu_count(job.model) or threads, model["dtype"]


@dataclass(frozen=True)
class ModelJob:
    """A job that runs or reads a model.

    Attributes:
        job: the job.
        study: its study.
        sizes: of the study.
        speed: factor on the default rates, for a machine that is known to be faster.
    """

    job: Job
    study: Study
    sizes: Sizes
    speed: float

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return self.sizes.shape(self.job.model)

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's settings."""
        settings: Mapping[str, Any] = self.study.settings["models"][self.job.model]
        return settings

    @property
    def on_gpu(self) -> bool:
        """Whether the model computes on a GPU."""
        return bool(self.model["device"] != "cpu")

    @property
    def weights(self) -> float:
        """Bytes of the model's weights in memory."""
        return self.shape.parameters * WIDTH[self.model["dtype"]]

    def activations(self, tokens: float, layers: float = 1) -> float:
        """Return the bytes that a backward pass keeps: about ten vectors of the stream and four of the MLP a layer.

        For SmolLM2-135M, 192 tokens and 24 layers it is 219 MB; 241 MB were measured.
        """
        vectors = 10 * self.shape.hidden + 4 * self.shape.intermediate
        return tokens * layers * vectors * WIDTH[self.model["dtype"]]

    def passes(self, count: float, layers: float, tokens: float, cost: float = 1, reads: float = 0) -> float:
        """Return the seconds of passes of a batch: arithmetic, reading weights or launching kernels, what is slowest.

        Args:
            count: number of passes.
            layers: that each runs through.
            tokens: in a batch.
            cost: forward passes that it costs: 1, 2 with a backward pass to the activations, 3 to the weights too.
            reads: positions that are projected on the vocabulary.
        """
        kind, cores, dtype = find_device(self.job, self.study)
        device = GPU if kind == "cuda" else CORE
        flops = GPU_FLOAT32 if device is GPU and dtype == "float32" else device.flops
        if device is CORE:  # GPUs of one model compute one after another
            flops *= cores
        shape, bandwidth = self.shape, device.bandwidth / WIDTH[dtype]
        layer = max(2 * tokens * shape.layer / flops, shape.layer / bandwidth, device.latency)
        head = max(2 * reads * shape.head / flops, shape.head / bandwidth) if reads else 0
        return count * cost * (layers * layer + head) / self.speed

    def algebra(self, flop: float) -> float:
        """Return the seconds of dense algebra in float64."""
        kind, cores, _ = find_device(self.job, self.study)
        return flop / (GPU.double if kind == "cuda" else CORE.double * cores) / self.speed

    def probing(self, facts: float) -> float:
        """Return the seconds of probing facts: the prompts, two targets from their cache, a free generation."""
        layers, probes = self.shape.layers, self.sizes.probes[self.job.dataset]
        generated = facts * self.study.settings["efficacy"]["new_tokens"]
        prompts = self.passes(facts, layers, probes * PROMPT, reads=probes)
        targets = self.passes(2 * facts, layers, 2 * probes, reads=2 * probes)
        return prompts + targets + self.passes(generated, layers, probes, reads=probes)

    def work(self, seconds: float, memory: float = 0, host: float = 0, disk: float = 0) -> Work:
        """Return the work of a job that loads the model; `memory` and `host` are what it holds beside the model."""
        loaded = PROCESS + self.weights
        return Work(seconds, loaded + memory, loaded + (host if self.on_gpu else memory), disk)
