"""What the jobs of each rule compute, hold and write: passes of the model, dense algebra, bytes. Torch-free.

Sizes, settings and what an editing method declares (`editing.cost`) decide. Each number is an estimate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from collateral.deltas.limits import MOST_RANKS
from collateral.editing.registry import declaration, edited_layers
from collateral.study.cost.model_shape import Shape
from collateral.study.cost.study_sizes import Sizes
from collateral.study.cost.work import Need, Pass, Work
from collateral.study.design import Study
from collateral.study.dtypes import WIDTH
from collateral.study.jobs import Job

# ASSUME: lengths in tokens, of zsRE's and CounterFact's prompts (median 9 to 12, contexts up to 10 before them).
PROMPT = 16  # of a prompt with its context and target
SUFFIX = 6  # from the subject's last token to the target's end
ANSWER = 3  # tokens of an answer, of which KN explains each
# Measured on a CPU (SmolLM2-135M): resident memory of a process that has imported torch and transformers. From the
# literature: device memory that CUDA itself takes. Unit: bytes.
PROCESS = 0.6e9
_STEP_TOKENS = {"cuda": 16384, "cpu": 192}  # of one pass of an optimization, see `editing.algorithms`
_LESSONS = 512  # of a training that stay in memory, see `editing.train_hypernetwork`
_ALL_FACTS = 400  # of a data set whose size is not known
_ITEM = 120  # bytes of one item's row and metric in a checkpoint's result, compressed

# ASSUME: what jobs without a model take on a CPU core, from a study of the 135M model, and what they ask a cluster
# for: generous, as their time is the network's or grows with the number of checkpoints.
LIGHT = {
    "download": (Work(2, memory=0.3e9, disk=5e6), Need(2000, 240)),
    "download_text": (Work(10, memory=0.3e9, disk=8e6), Need(4000, 240)),
    "load_facts": (Work(2, memory=0.3e9, disk=2e6), Need(2000, 30)),
    "load_training_facts": (Work(2, memory=0.3e9, disk=2e6), Need(4000, 30)),
    "prepare_benchmark": (Work(2, memory=0.3e9, disk=1e6), Need(2000, 30)),
    "sample_sequence": (Work(2, memory=0.3e9, disk=0.1e6), Need(1000, 10)),
    "screen_collapse": (Work(3, memory=0.3e9, disk=1e3), Need(2000, 20)),
    "gather": (Work(6, memory=0.6e9, disk=2e6), Need(4000, 120)),
    "infer": (Work(15, memory=0.6e9, disk=1e6), Need(4000, 240)),
    "report": (Work(25, memory=0.6e9, disk=4e6), Need(4000, 120)),
}
_ON_CPU = {*LIGHT, "download_model", "weigh", "export_checkpoint"}  # no model is loaded on its device


@dataclass(frozen=True)
class ModelJob:
    """A job that runs or reads a model."""

    job: Job
    study: Study
    sizes: Sizes

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

    def probing(self, facts: float) -> tuple[Pass, ...]:
        """Return the passes that probe facts: the prompts, two targets from their cache, a free generation."""
        layers, probes = self.shape.layers, self.sizes.probes[self.job.dataset]
        return (
            Pass(facts, layers, probes * PROMPT, reads=probes),
            Pass(2 * facts, layers, 2 * probes, reads=2 * probes),
            Pass(facts * self.study.settings["efficacy"]["new_tokens"], layers, probes, reads=probes),
        )

    def work(
        self,
        start: float,
        passes: tuple[Pass, ...],
        products: float = 0,
        memory: float = 0,
        host: float = 0,
        disk: float = 0,
    ) -> Work:
        """Return the work of a job that loads the model; `memory` and `host` are what it holds beside the model."""
        loaded = PROCESS + self.weights
        return Work(start, passes, products, loaded + memory, loaded + host, disk)


def device_of(job: Job, study: Study) -> tuple[str, int, str]:
    """Return device kind (cpu or cuda), cores or GPUs, and dtype of a job."""
    threads: int = study.settings["runtime"]["threads"]
    if job.rule in _ON_CPU:
        return "cpu", threads if job.rule == "weigh" else 1, "float32"
    model = study.settings["models"][job.model]
    return model["device"].partition(":")[0], study.gpu_count(job.model) or threads, model["dtype"]


def work_of(job: Job, study: Study, sizes: Sizes) -> Work:
    """Return the work of a job."""
    return LIGHT[job.rule][0] if job.rule in LIGHT else _RULES[job.rule](ModelJob(job, study, sizes))


def _download_model(own: ModelJob) -> Work:
    # ASSUME: the source's files are float32; the papers' 7B models lie there in 16 bits, half of it
    stored = 4.0 * own.shape.parameters
    # a quantized file is unpacked into one model and copied into another; files of a hub or folder are only copied
    memory = PROCESS + 3 * stored if "wheel" in own.model["source"] else 1e9
    return Work(5 + stored / 100e6, memory=memory, disk=stored)


def _sample_contexts(own: ModelJob) -> Work:
    contexts = own.study.settings["contexts"]
    lengths = [] if contexts["explicit"] else contexts["lengths"]
    passes = tuple(Pass(length * count, own.shape.layers, length / 2, reads=1) for length, count in lengths)
    return own.work(12, passes, disk=1e3)


def _measure_moments(own: ModelJob) -> Work:
    settings, layers, width = own.study.settings["moments"], own.job.layers, own.shape.intermediate
    tokens, batch = settings["tokens"] or 10 * width, settings["window"] * settings["batch"]
    squares = float(len(layers) * width**2)
    return own.work(
        start=20,  # the text is read and tokenized
        passes=(Pass(tokens / batch, max(layers, default=0) + 1, batch),),
        products=tokens * squares * 0.6,  # 2 FLOP an element of the upper half and token, in float32
        memory=12 * squares + own.activations(batch),  # sums in float64, and what is written, float32
        host=4 * squares,
        disk=4 * squares,
    )


def _probe_known(own: ModelJob) -> Work:
    dataset = own.job.dataset
    facts = own.study.settings["datasets"][dataset]["limit"] or own.sizes.facts.get(dataset, _ALL_FACTS)
    return own.work(12, (Pass(facts / 8, own.shape.layers, 8 * PROMPT, reads=16),), disk=20e3)


def _probe(own: ModelJob) -> Work:
    """Reference and efficacy: every fact of a block, or of the whole chain so far."""
    facts = own.job.edits - (own.job.start if own.job.rule == "measure_reference" else 0)
    probes = own.sizes.probes[own.job.dataset]
    held = own.activations(probes * PROMPT, 2) + 12 * probes * own.shape.vocabulary
    return own.work(13, own.probing(facts), memory=held, disk=4e3 + 80 * facts * probes)


def _measure_drift(own: ModelJob) -> Work:
    """The text twice, and both models' distributions at each position."""
    settings, shape = own.study.settings["drift"], own.shape
    tokens, batch = settings["tokens"], 8 * settings["sequence_length"]
    kept = 16 * tokens * (Editor(own).matrices + 2) * shape.hidden
    held = own.activations(min(tokens, batch)) + 4 * 8 * 128 * shape.vocabulary
    passes = (Pass(2 * tokens / batch, shape.layers, batch, reads=batch),)
    return own.work(13, passes, memory=held + kept, host=kept, disk=2e3)


def _evaluate(own: ModelJob) -> Work:
    batch, counts = own.study.settings["suites"][own.job.suite]["batch_size"], own.sizes.suites[own.job.suite]
    passes: list[Pass] = []
    for task in counts:
        rows, width = task.items * task.requests / batch, batch * task.tokens
        # lm-eval projects every position of every row on the vocabulary
        passes.append(Pass(rows, own.shape.layers, width, reads=width))
        passes.append(Pass(rows * task.generated, own.shape.layers, batch, reads=batch))
    longest = max(task.tokens for task in counts) * batch
    held = own.activations(longest) + 8 * longest * own.shape.vocabulary
    return own.work(20, tuple(passes), memory=held, disk=40e3 + _ITEM * sum(task.items for task in counts))


def _weigh(own: ModelJob) -> Work:
    """One matrix after another is read from the files; the model itself is never loaded."""
    shape, elements = own.shape, Editor(own).elements
    decompositions = 4.0 * min(shape.hidden, shape.intermediate)  # QR of W_0 and W
    held = PROCESS + 48 * shape.matrix
    return Work(5, products=(300 + decompositions) * elements, memory=held, host=held, disk=80e3)


def _export(own: ModelJob) -> Work:
    """A whole model is rebuilt on the CPU and written."""
    held = PROCESS + 2 * own.weights
    return Work(12 + own.weights / 100e6, memory=held, host=held, disk=own.weights)


class Editor:
    """A method with all its settings on a model's shape; `cost` is what the method declares.

    Attributes:
        layers: that its settings name.
        matrices: number of matrices that it may change.
        elements: of these matrices.
    """

    def __init__(self, own: ModelJob) -> None:
        study, model, editor = own.study, own.job.model, own.job.editor
        self.own, self.shape, self.recipe = own, own.shape, study.recipe(model, editor)
        method = self.recipe["method"]
        declared = declaration(method)
        self.cost, self.flags = declared.cost, declared.flags
        self.settings = {**declared.defaults, **self.recipe["settings"]}
        self.layers = edited_layers(method, self.recipe["settings"])
        self.moments = len(study.moment_layers(model, editor))
        root = self.cost.get("root", False)
        self.root = bool(self.settings[root] if isinstance(root, str) else root)
        in_layer = {"down": 1, "mlp": 3 if self.shape.gated else 2}
        changes = self.cost.get("changes", "down")
        self.matrices = (
            self.shape.layers if changes == "columns" else len(self.layers) * in_layer.get(changes, 0)
        )
        self.elements = self.matrices * self.shape.matrix
        self.kind = {"pca": "projection", "prune": "accumulated", "none": "none"}.get(
            self.recipe["regularizer"]["name"], "mask"
        )

    def number(self, setting: str | int) -> int:
        """Return a number that is given, or that a setting holds."""
        return int(self.settings[setting]) if isinstance(setting, str) else setting

    def state(self) -> float:
        """Return the bytes of what an editor carries from one checkpoint to the next."""
        per_layer = (
            8.0 * self.shape.intermediate**2 * self.root
        )  # AlphaEdit's is as wide as the null space: less
        per_layer += 8.0 * self.shape.matrix * ("replaces" in self.flags)
        return len(self.layers) * per_layer + 8.0 * self.elements * (self.kind == "accumulated")

    def stored(self, operations: int, batch: int, facts: int) -> float:
        """Return the bytes of a delta: of the changed elements, or of factors and masks where these are fewer.

        Measured on the 135M model in float32: 3.3 to 3.5 bytes an element of a dense update, 5.7 a changed element
        of a masked one (its place costs too).
        """
        if self.cost.get("changes") == "columns":
            return 0.1e6
        kept = self.recipe["regularizer"]["keep"] / 100 if self.kind == "mask" else 1.0
        # ASSUME: masks of single edits are independent, which is the largest union they can be expected to have
        share = 1 - (1 - kept) ** max(facts, 1)
        changed = self.elements * min(3.5, 5.7 * share) * WIDTH[self.own.model["dtype"]] / 4
        if not self.cost.get("low_rank") or self.kind not in {"none", "mask"} or batch > MOST_RANKS:
            return changed
        bits = -sum(p * math.log2(p) for p in (kept, 1 - kept) if p > 0)  # of a mask, an element
        factors = 8 * batch * self.matrices * (self.shape.hidden + self.shape.intermediate)
        return min(changed, operations * (factors + self.elements * bits / 8))


def _edit(own: ModelJob) -> Work:
    """One link of a chain, or some single edits, with each edit's own probes."""
    editor, job, shape = Editor(own), own.job, own.shape
    cost, elements, device = editor.cost, editor.elements, "cuda" if own.on_gpu else "cpu"
    facts = job.edits - job.start
    batch = min(editor.recipe["batch_size"], facts)
    operations = -(-facts // batch)

    # passes: one of the whole model, the steps, and one through the edited layers for each further one of them
    steps, texts = editor.number(cost.get("steps", 0)), cost.get("texts", "prompts")
    depth: float = shape.layers - max(editor.layers, default=0)
    rows, tokens, times = float(batch), PROMPT, operations * steps
    if texts == "contexts":
        contexts = own.study.settings["contexts"]
        count = len(contexts["explicit"]) or 1 + sum(number for _, number in contexts["lengths"])
        samples = int(editor.settings.get("context_samples", 0))
        rows = batch * (
            1 + min(count, 1 + samples) if samples else 1 + count
        )  # and the prompt of the KL term
        tokens = SUFFIX
    elif texts == "integral":
        points = shape.layers * steps
        rows, tokens, depth = min(points, int(editor.settings["batch"])), 1, (shape.layers + 1) / 2
        times = operations * ANSWER * -(-points // rows)
    backward = 3 if cost.get("weight_gradients") else 2
    reads = rows if texts == "integral" else 2 * rows
    passes = (
        Pass(operations, shape.layers, (batch if texts == "integral" else rows) * PROMPT),
        Pass(times, depth, rows * tokens, backward, reads),
        Pass(operations * max(0, len(editor.layers) - 1), len(editor.layers), rows * tokens),
    )

    # dense algebra in float64: factors of second moments, solves, masks, singular values
    square, once = float(shape.intermediate) ** 2, 0.0
    each = 30.0 * elements * (1 + steps * bool(cost.get("weight_gradients")))  # Adam
    if not editor.root or job.start == 0 or job.rule == "edit_singly":
        once = cost.get("factorization", 1 / 3) * editor.moments * square * shape.intermediate
    if editor.root:
        # ASSUME: one key reads and writes the root six times, in the time of 50 FLOP an element (measured)
        each += editor.moments * (50 + 6 * batch) * square
        each += (30 + 4 * batch) * elements * ("replaces" in editor.flags)
    decomposition, selection = 10.0 * shape.hidden * elements, 100.0 * elements
    each += {"projection": decomposition, "mask": selection}.get(editor.kind, 0)
    once += decomposition * (editor.kind == "accumulated")

    # memory: W_0, the accumulated and the new update; moments and one that is factorized; one step; the state
    held = (4.0 if cost.get("changes") == "columns" else 16.0) * elements
    if editor.moments:
        # a factor is kept by panels; a root on the GPU, or else in a file, see `editing.state`
        kept = (1.0 if own.on_gpu else 0.0) if editor.root else 17 / 32
        held += 8 * square * (kept * editor.moments + 3)
    in_step = float(rows) if texts == "integral" else min(rows * tokens, _STEP_TOKENS[device])
    held += own.activations(in_step, depth)
    held += 12 * min(in_step, 2 * batch if texts == "integral" else reads) * shape.vocabulary
    held += editor.state() if own.on_gpu else editor.state() / max(1, len(editor.layers))

    left = editor.stored(operations, batch, facts) + editor.state()
    return own.work(
        start=12,
        passes=(*(passes if steps else ()), *own.probing(facts)),
        products=once + operations * each,
        memory=held,
        host=8 * square * editor.moments,
        disk=2e3 * facts + (0 if job.rule == "edit_singly" else left),
    )


def _train(own: ModelJob) -> Work:
    """All steps of a hypernetwork's training, since an early stop cannot be known before."""
    editor, shape = Editor(own), own.shape
    facts, batch, steps = (
        int(editor.settings[name]) for name in ("training_facts", "training_batch", "max_steps")
    )
    texts = 5 * PROMPT  # ASSUME: an edit, two paraphrases and two texts of the neighbourhood
    above = shape.layers - min(editor.layers)
    losses = steps * int(editor.settings["accumulate"]) * batch
    checks = steps / int(editor.settings["validate_every"]) * facts / 8
    sides = shape.hidden + shape.intermediate
    network = 8.0 * int(editor.settings["rank"]) * sides
    lessons = min(_LESSONS, facts) * 4.0 * (8 * shape.vocabulary + 2 * PROMPT * editor.matrices * sides)
    return own.work(
        start=15,
        passes=(
            Pass(facts, shape.layers, texts, 2, reads=10),
            Pass(losses, above, texts, 3, reads=10),
            Pass(checks, above, texts, reads=10),
        ),
        products=losses * 3 * network * PROMPT * editor.matrices,
        memory=16 * network + lessons + 16 * editor.elements + own.activations(texts, above),
        disk=4 * network,
    )


_RULES: dict[str, Callable[[ModelJob], Work]] = {
    "download_model": _download_model,
    "sample_contexts": _sample_contexts,
    "measure_moments": _measure_moments,
    "probe_known": _probe_known,
    "measure_reference": _probe,
    "measure_efficacy": _probe,
    "evaluate_unedited": _evaluate,
    "evaluate_abilities": _evaluate,
    "measure_drift": _measure_drift,
    "weigh": _weigh,
    "export_checkpoint": _export,
    "edit": _edit,
    "edit_singly": _edit,
    "train_hypernetwork": _train,
}
