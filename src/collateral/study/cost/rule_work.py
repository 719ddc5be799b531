"""What each rule's jobs compute, hold and write, by rule. Torch-free."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from collateral.study.cost.editing_work import changed_elements, edit_work, training_work
from collateral.study.cost.model_shape import Shape
from collateral.study.cost.work import (
    CONTEXT,
    LIGHT,
    PROCESS,
    PROMPT,
    Pass,
    Work,
    activations,
    probing,
    weights,
)
from collateral.study.design import Study
from collateral.study.jobs import Job
from collateral.tasks.token_counts import TaskCount

_EVERY = 400  # facts of a data set whose size is not known, that are probed for being known
_SCORED = 120  # bytes of one item's row and metric in a checkpoint's result, compressed


@dataclass(frozen=True)
class Sizes:
    """What is known of a study beside its settings.

    Attributes:
        shapes: model → its shape, where it is known.
        suites: suite → what each of its tasks asks.
        probes: data set → probes of a fact: the edit itself, paraphrases, neighbourhood, portability.
        facts: data set → number of facts, where the table is there.
    """

    shapes: Mapping[str, Shape | None]
    suites: Mapping[str, Sequence[TaskCount]]
    probes: Mapping[str, float]
    facts: Mapping[str, int]


def work_of(job: Job, study: Study, sizes: Sizes) -> Work | None:
    """Return the work of a job; None where it runs a model of unknown shape."""
    if job.rule in _LIGHT:
        return _LIGHT[job.rule]
    shape = sizes.shapes.get(job.model)
    return None if shape is None else _MODEL[job.rule](job, study, sizes, shape)


# ASSUME: what these take on a CPU core, from a study of the 135M model; a download's time is the network's.
_LIGHT = {
    "download": Work(start=2, disk=5e6),
    "download_text": Work(start=10, disk=8e6),
    "load_facts": Work(start=2, disk=2e6),
    "load_training_facts": Work(start=2, disk=2e6),
    "prepare_benchmark": Work(start=2, disk=1e6),
    "sample_sequence": Work(start=2, disk=0.1e6),
    "gather": Work(start=6, memory=2 * LIGHT, disk=2e6),
    "infer": Work(start=15, memory=2 * LIGHT, disk=1e6),
    "report": Work(start=25, memory=2 * LIGHT, disk=4e6),
    "screen_collapse": Work(start=3, disk=1e3),
}
# What computes with numbers that it reads, or with none: no model is loaded on its device.
NO_MODEL = frozenset({*_LIGHT, "download_model", "weigh", "export_checkpoint"})


def place_of(job: Job, study: Study) -> tuple[str, int, str]:
    """Return device kind (cpu or cuda), cores or GPUs, and dtype of a job."""
    if job.rule in NO_MODEL:
        return "cpu", study.settings["runtime"]["threads"] if job.rule == "weigh" else 1, "float32"
    own = study.settings["models"][job.model]
    kind = own["device"].partition(":")[0]
    return kind, study.gpu_count(job.model) or study.settings["runtime"]["threads"], own["dtype"]


def _common(job: Job, study: Study, shape: Shape) -> tuple[float, float]:
    """Return the bytes of a loaded model with its process: on its device, and in main memory."""
    own = study.settings["models"][job.model]
    loaded = weights(shape, own["dtype"])
    place = CONTEXT if own["device"] != "cpu" else PROCESS
    return place + loaded, PROCESS + loaded


def _model(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    # ASSUME: the source's files are float32; the papers' 7B models lie there in 16 bits, half of it
    stored = 4.0 * shape.parameters
    # a quantised file is unpacked into one model and copied into another; files of a hub or folder are only copied
    converted = PROCESS + 3 * stored if "wheel" in study.settings["models"][job.model]["source"] else 1e9
    return Work(start=5 + stored / 100e6, memory=converted, disk=stored)


def _export(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    """A whole model, rebuilt on the CPU and written."""
    loaded = weights(shape, study.settings["models"][job.model]["dtype"])
    return Work(
        start=12 + loaded / 100e6, memory=PROCESS + 2 * loaded, host=PROCESS + 2 * loaded, disk=loaded
    )


def _contexts(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    own = study.settings["contexts"]
    memory, host = _common(job, study, shape)
    drawn = [(length, count) for length, count in ([] if own["explicit"] else own["lengths"])]
    passes = [Pass(length * count, shape.layers, length / 2, reads=1) for length, count in drawn]
    return Work(12, tuple(passes), memory=memory, host=host, disk=1e3)


def _moments(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    own = study.settings["moments"]
    tokens = own["tokens"] or 10 * shape.intermediate
    batch = own["window"] * own["batch"]
    memory, host = _common(job, study, shape)
    squares = float(len(job.layers) * shape.intermediate**2)
    dtype = study.settings["models"][job.model]["dtype"]
    written = 4 * squares  # float32, beside the sums in float64
    return Work(
        start=20,  # the text is read and tokenized
        passes=(Pass(tokens / batch, max(job.layers, default=0) + 1, batch),),
        products=tokens * squares * 0.6,  # 2 FLOP an element of the upper half and token, in float32
        memory=memory + 8 * squares + written + activations(shape, batch, 1, dtype),
        host=host + written,
        disk=written,
    )


def _known(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    facts = study.settings["datasets"][job.dataset]["limit"] or sizes.facts.get(job.dataset, _EVERY)
    memory, host = _common(job, study, shape)
    passes = (Pass(facts / 8, shape.layers, 8 * PROMPT, reads=16),)
    return Work(12, passes, memory=memory, host=host, disk=20e3)


def _probe(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    """Reference and efficacy: every fact of a block, or of the whole chain so far."""
    facts = job.edits - (job.start if job.rule == "measure_reference" else 0)
    memory, host = _common(job, study, shape)
    dtype = study.settings["models"][job.model]["dtype"]
    probes = sizes.probes[job.dataset]
    held = activations(shape, probes * PROMPT, 2, dtype) + 12 * probes * shape.vocabulary
    return Work(
        start=13,
        passes=probing(shape, facts, probes, study.settings["efficacy"]["new_tokens"]),
        memory=memory + held,
        host=host,
        disk=4e3 + 80 * facts * probes,
    )


def _drift(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    """The text twice, and both models' distributions at each position."""
    tokens = study.settings["drift"]["tokens"]
    memory, host = _common(job, study, shape)
    dtype = study.settings["models"][job.model]["dtype"]
    matrices = changed_elements(study, job, shape) / shape.matrix
    kept = 2 * tokens * (matrices + 2) * shape.hidden * 8
    batch = 8 * study.settings["drift"]["sequence_length"]
    held = activations(shape, min(tokens, batch), 1, dtype) + 4 * 8 * 128 * shape.vocabulary
    passes = (Pass(2 * tokens / batch, shape.layers, batch, reads=batch),)
    return Work(13, passes, memory=memory + held + kept, host=host + kept, disk=2e3)


def _evaluation(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    own, counts = study.settings["suites"][job.suite], sizes.suites[job.suite]
    memory, host = _common(job, study, shape)
    dtype, batch = study.settings["models"][job.model]["dtype"], own["batch_size"]
    passes: list[Pass] = []
    for task in counts:
        rows = task.items * task.requests / batch
        # lm-eval projects every position of every row on the vocabulary
        passes.append(Pass(rows, shape.layers, batch * task.tokens, reads=batch * task.tokens))
        if task.generated:
            passes.append(Pass(rows * task.generated, shape.layers, batch, reads=batch))
    longest = max(task.tokens for task in counts) * batch
    held = activations(shape, longest, 1, dtype) + 2 * 4 * longest * shape.vocabulary
    items = sum(task.items for task in counts)
    return Work(20, tuple(passes), memory=memory + held, host=host, disk=40e3 + _SCORED * items)


def _weigh(job: Job, study: Study, sizes: Sizes, shape: Shape) -> Work:
    elements = changed_elements(study, job, shape)
    # one matrix after another, read from the files: the model itself is never loaded
    held = PROCESS + 6 * 8 * shape.matrix
    triangles = 4.0 * min(shape.hidden, shape.intermediate)  # QR decompositions of W_0 and W
    return Work(5, products=(300 + triangles) * elements, memory=held, host=held, disk=80e3)


_MODEL: dict[str, Callable[[Job, Study, Sizes, Shape], Work]] = {
    "download_model": _model,
    "sample_contexts": _contexts,
    "measure_moments": _moments,
    "probe_known": _known,
    "measure_reference": _probe,
    "measure_efficacy": _probe,
    "evaluate_unedited": _evaluation,
    "evaluate_abilities": _evaluation,
    "measure_drift": _drift,
    "weigh": _weigh,
    "export_checkpoint": _export,
    "edit": lambda job, study, sizes, shape: edit_work(study, job, shape, sizes.probes[job.dataset]),
    "edit_singly": lambda job, study, sizes, shape: edit_work(study, job, shape, sizes.probes[job.dataset]),
    "train_hypernetwork": lambda job, study, sizes, shape: training_work(study, job, shape),
}
