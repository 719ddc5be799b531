"""What the jobs of each rule take. Torch-free. Sizes and settings decide; each number is an estimate."""

from collections.abc import Callable

from collateral.study.cost.edit_work import Editor, compute_edit_work, compute_training_work
from collateral.study.cost.study_sizes import Sizes
from collateral.study.cost.work import LIGHT, PROCESS, PROMPT, ModelJob, Work
from collateral.study.design import Study
from collateral.study.jobs import Job

_ALL_FACTS = 400  # of a data set whose size is not known
_ITEM = 120  # bytes of one item's row and metric in a checkpoint's result, compressed


def compute_work(job: Job, study: Study, sizes: Sizes, speed: float = 1) -> Work:
    """Return what a job takes, on a machine that is faster by a factor than the default."""
    return LIGHT[job.rule][0] if job.rule in LIGHT else _RULES[job.rule](ModelJob(job, study, sizes, speed))


def _download_model(run: ModelJob) -> Work:
    # ASSUME: the source's files are float32; the papers' 7B models lie there in 16 bits, half of it
    stored = 4.0 * run.shape.parameters
    # a quantized file is unpacked into one model and copied into another; files of a hub or folder are only copied
    memory = PROCESS + 3 * stored if "wheel" in run.model["source"] else 1e9
    return Work(5 + stored / 100e6, memory, memory, stored)


def _sample_contexts(run: ModelJob) -> Work:
    contexts = run.study.settings["contexts"]
    lengths = [] if contexts["explicit"] else contexts["lengths"]
    passes = sum(
        run.passes(length * count, run.shape.layers, length / 2, reads=1) for length, count in lengths
    )
    return run.work(12 + passes, disk=1e3)


def _measure_moments(run: ModelJob) -> Work:
    settings, layers, width = run.study.settings["moments"], run.job.layers, run.shape.intermediate
    tokens, batch = settings["tokens"] or 10 * width, settings["window"] * settings["batch"]
    squares = float(len(layers) * width**2)
    passes = run.passes(tokens / batch, max(layers, default=0) + 1, batch)
    sums = run.algebra(tokens * squares * 0.6)  # 2 FLOP an element of the upper half and token, in float32
    memory = 12 * squares + run.activations(batch)  # sums in float64, and what is written, float32
    return run.work(20 + passes + sums, memory, host=4 * squares, disk=4 * squares)


def _probe_known(run: ModelJob) -> Work:
    dataset = run.job.dataset
    facts = run.study.settings["datasets"][dataset]["limit"] or run.sizes.facts.get(dataset, _ALL_FACTS)
    return run.work(12 + run.passes(facts / 8, run.shape.layers, 8 * PROMPT, reads=16), disk=20e3)


def _probe(run: ModelJob) -> Work:
    """Reference and efficacy: every fact of a block, or of the whole chain so far."""
    facts = run.job.edits - (run.job.start if run.job.rule == "measure_reference" else 0)
    probes = run.sizes.probes[run.job.dataset]
    held = run.activations(probes * PROMPT, 2) + 12 * probes * run.shape.vocabulary
    return run.work(13 + run.probing(facts), held, disk=4e3 + 80 * facts * probes)


def _measure_drift(run: ModelJob) -> Work:
    """The text twice, and both models' distributions at each position."""
    settings, shape = run.study.settings["drift"], run.shape
    tokens, batch = settings["tokens"], 8 * settings["sequence_length"]
    kept = 16 * tokens * (Editor(run).matrices + 2) * shape.hidden
    held = run.activations(min(tokens, batch)) + 4 * 8 * 128 * shape.vocabulary
    passes = run.passes(2 * tokens / batch, shape.layers, batch, reads=batch)
    return run.work(13 + passes, held + kept, host=kept, disk=2e3)


def _evaluate(run: ModelJob) -> Work:
    batch, counts = run.study.settings["suites"][run.job.suite]["batch_size"], run.sizes.suites[run.job.suite]
    layers, seconds = run.shape.layers, 20.0
    for task in counts:
        rows, width = task.items * task.requests / batch, batch * task.tokens
        # lm-eval projects every position of every row on the vocabulary
        seconds += run.passes(rows, layers, width, reads=width)
        seconds += run.passes(rows * task.generated, layers, batch, reads=batch)
    longest = max(task.tokens for task in counts) * batch
    held = run.activations(longest) + 8 * longest * run.shape.vocabulary
    return run.work(seconds, held, disk=40e3 + _ITEM * sum(task.items for task in counts))


def _weigh(run: ModelJob) -> Work:
    """One matrix after another is read from the files; the model itself is never loaded."""
    shape = run.shape
    decompositions = 4.0 * min(shape.hidden, shape.intermediate)  # QR of W_0 and W
    seconds = 5 + run.algebra((300 + decompositions) * Editor(run).elements)
    held = PROCESS + 48 * shape.matrix
    return Work(seconds, held, held, 80e3)


def _export(run: ModelJob) -> Work:
    """A whole model is rebuilt on the CPU and written."""
    held = PROCESS + 2 * run.weights
    return Work(12 + run.weights / 100e6, held, held, run.weights)


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
    "edit": compute_edit_work,
    "edit_singly": compute_edit_work,
    "train_hypernetwork": compute_training_work,
}
