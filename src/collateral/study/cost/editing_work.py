"""What editing computes, holds and writes, read from each method's own settings. Torch-free."""

from dataclasses import dataclass

from collateral.deltas.limits import MOST_RANKS
from collateral.editing.registry import declaration, edited_layers, is_flagged
from collateral.study.cost.model_shape import Shape
from collateral.study.cost.work import (
    CONTEXT,
    PROCESS,
    PROMPT,
    SUFFIX,
    TEXTS,
    Pass,
    Work,
    activations,
    delta_bytes,
    entropy,
    kept_share,
    probing,
    weights,
)
from collateral.study.design import Settings, Study
from collateral.study.jobs import Job

_CUDA_TOKENS = 16384  # of one pass of the value optimisation, see `targets`
_CPU_TOKENS = 192
_LESSONS = 512  # of a training that stay in memory, see `hypertraining`


@dataclass(frozen=True)
class _Editor:
    """A method with all its settings, on a shape."""

    method: str
    every: Settings
    layers: list[int]
    shape: Shape
    batch: int
    operations: int
    contexts: int
    dtype: str
    device: str
    begins: bool  # without a state of edits before

    @property
    def matrices(self) -> int:
        """Number of matrices that an edit may touch."""
        if is_flagged(self.method, "hypernetwork"):
            return len(self.layers) * (3 if self.shape.gated else 2)
        if "lambda_new" in self.every:  # KN may touch any layer
            return self.shape.layers
        return 0 if self.method == "noop" or is_flagged(self.method, "adapter") else len(self.layers)

    @property
    def above(self) -> int:
        """Layers above the last that is edited: what an optimisation runs through at each step."""
        return self.shape.layers - 1 - max(self.layers, default=0)

    @property
    def rows(self) -> int:
        """Texts of one fact in the value optimisation: contexts, and the prompt of the KL term."""
        samples = int(self.every.get("context_samples", 0))
        return 1 + (min(self.contexts, 1 + samples) if samples else self.contexts)


def _editor(study: Study, job: Job, shape: Shape) -> _Editor:
    recipe, own = study.recipe(job.model, job.editor), study.settings["contexts"]
    every = {**declaration(recipe["method"]).defaults, **recipe["settings"]}
    batch = min(recipe["batch_size"], job.edits - job.start)
    return _Editor(
        method=recipe["method"],
        every=every,
        layers=edited_layers(recipe["method"], recipe["settings"]),
        shape=shape,
        batch=batch,
        operations=-(-(job.edits - job.start) // batch),
        contexts=len(own["explicit"]) or 1 + sum(count for _, count in own["lengths"]),
        dtype=study.settings["models"][job.model]["dtype"],
        device=study.settings["models"][job.model]["device"].partition(":")[0],
        begins=job.start == 0 or job.rule == "edit_singly",
    )


def changed_elements(study: Study, job: Job, shape: Shape) -> float:
    """Return the number of elements of the matrices that an editor may change."""
    return _editor(study, job, shape).matrices * shape.matrix


def edit_work(study: Study, job: Job, shape: Shape, probes: float) -> Work:
    """Return the work of one link of a chain, or of some single edits, with each edit's own probes."""
    editor, facts = _editor(study, job, shape), job.edits - job.start
    recipe = study.recipe(job.model, job.editor)
    regularizer = recipe["regularizer"]
    elements = editor.matrices * shape.matrix
    after = probing(shape, facts, probes, study.settings["efficacy"]["new_tokens"])
    moments = study.moment_layers(job.model, job.editor)
    memory = (
        weights(shape, editor.dtype)
        + (4 if "lambda_new" in editor.every else 16) * elements  # W_0, what has accumulated, and the update
        + _moments(editor, len(moments))
        + _optimising(editor)
        + _held(editor, _state(editor, regularizer))
    )
    stored = _stored(editor, regularizer, facts)
    single = job.rule == "edit_singly"
    return Work(
        start=12,
        passes=(*_passes(editor), *after),
        products=_products(editor, regularizer, len(moments)),
        memory=memory + (CONTEXT if editor.device == "cuda" else PROCESS),
        host=PROCESS + weights(shape, editor.dtype) + 8 * shape.intermediate**2 * len(moments),
        disk=2e3 * facts + (0 if single else stored + _state(editor, regularizer)),
    )


def _stored(editor: _Editor, regularizer: Settings, facts: int) -> float:
    """Return the bytes of a delta: of the changed elements, or of factors and masks where these are fewer."""
    if "lambda_new" in editor.every:  # some columns
        return 0.1e6
    elements = editor.matrices * editor.shape.matrix
    changed = delta_bytes(elements, kept_share(regularizer, facts), editor.dtype)
    low_rank = "v_num_grad_steps" in editor.every and not is_flagged(editor.method, "replaces")
    if not low_rank or regularizer["name"] in {"pca", "prune"} or editor.batch > MOST_RANKS:
        return changed
    sides = editor.matrices * (editor.shape.hidden + editor.shape.intermediate)
    mask = elements * entropy(kept_share(regularizer, 1)) / 8
    return min(changed, editor.operations * (8 * editor.batch * sides + mask))


def _passes(editor: _Editor) -> tuple[Pass, ...]:
    """Return the passes of the model that the operations of an editor take."""
    every, count, batch, shape = editor.every, editor.operations, editor.batch, editor.shape
    if "v_num_grad_steps" in every:
        tokens = batch * editor.rows * SUFFIX
        steps = count * int(every["v_num_grad_steps"])  # ASSUME: none ends early
        return (
            Pass(count, shape.layers, batch * editor.rows * PROMPT),
            Pass(steps, editor.above, tokens, 2, reads=2 * batch * editor.rows),
            Pass(count * (len(editor.layers) - 1), len(editor.layers), tokens),
        )
    if "num_steps" in every:
        steps = count * int(every["num_steps"])
        return (Pass(steps, editor.above + 1, batch * PROMPT, 3, reads=2 * batch),)
    if "n_iter" in every:
        steps = count * int(every["n_iter"])
        return (Pass(steps, editor.above + 1, batch * PROMPT, 2, reads=2 * batch),)
    if "lambda_new" in every:
        points = shape.layers * int(every["steps"])
        rows = min(points, int(every["batch"]))
        texts = count * TEXTS * -(-points // rows)
        return (Pass(texts, (shape.layers + 1) / 2, rows, 2, reads=rows),)
    if is_flagged(editor.method, "hypernetwork"):
        return (Pass(count, shape.layers, batch * PROMPT, 2, reads=2 * batch),)
    return ()


def _products(editor: _Editor, regularizer: Settings, moments: int) -> float:
    """Return the dense algebra beside the passes: factors of C, solves, masks, singular values."""
    wide, elements = float(editor.shape.intermediate) ** 3, editor.matrices * editor.shape.matrix
    once, each = moments * wide / 3, 30.0 * elements
    if _keeps_root(editor):
        once = moments * wide * (10 if "nullspace_threshold" in editor.every else 4 / 3) * editor.begins
        # ASSUME: one key reads and writes the root six times, in the time of 50 FLOP an element (measured)
        each += moments * (50 + 6 * editor.batch) * float(editor.shape.intermediate) ** 2
        if is_flagged(editor.method, "replaces"):
            each += (30 + 4 * editor.batch) * elements
    squares = 10.0 * editor.shape.hidden * elements  # of a singular value decomposition
    if regularizer["name"] == "pca":
        each += squares
    elif regularizer["name"] == "prune":
        once += squares
    elif regularizer["name"] in {"rect", "random", "magnitude"}:
        each += 100.0 * elements  # a selection
    if "num_steps" in editor.every:
        each += 30.0 * elements * int(editor.every["num_steps"])  # Adam
    return once + editor.operations * each


def _keeps_root(editor: _Editor) -> bool:
    """Return whether a method's state is a root of its system's inverse, see `roots`: D4S, MEMIT-seq, AlphaEdit."""
    root = "nullspace_threshold" in editor.every or bool(editor.every.get("sequential"))
    return root or is_flagged(editor.method, "replaces")


def _state(editor: _Editor, regularizer: Settings) -> float:
    """Return the bytes of what an editor carries from one checkpoint to the next."""
    square = 8.0 * editor.shape.intermediate**2
    # AlphaEdit's root is as wide as the null space, which is less
    own = len(editor.layers) * square if _keeps_root(editor) else 0.0
    if is_flagged(editor.method, "replaces"):  # D4S: its update in float64, too
        own += len(editor.layers) * 8 * editor.shape.matrix
    if regularizer["name"] == "prune":
        own += 8 * editor.matrices * editor.shape.matrix  # the raw weights
    return own


def _held(editor: _Editor, state: float) -> float:
    """Return the bytes of a state in memory: all of it on a GPU, elsewhere one layer of it, see `states`."""
    return state if editor.device == "cuda" else state / max(1, len(editor.layers))


def _moments(editor: _Editor, count: int) -> float:
    """Return the bytes of second moments on the device: their factors or roots, and one that is being factorised."""
    square = 8.0 * editor.shape.intermediate**2
    if not count:
        return 0
    kept = 17 / 32  # a factor is kept by panels, see `moments`
    if _keeps_root(editor):
        kept = 1.0 if editor.device == "cuda" else 0.0  # in a file, see `states`
    return square * (kept * count + 3)


def _optimising(editor: _Editor) -> float:
    """Return the bytes of activations and logits of one step of the optimisation, or of one pass."""
    shape, batch = editor.shape, editor.batch
    layers = float(editor.above + 1)
    tokens = float(batch * editor.rows * SUFFIX) if "v_num_grad_steps" in editor.every else batch * PROMPT
    if "lambda_new" in editor.every:
        tokens = min(shape.layers * int(editor.every["steps"]), int(editor.every["batch"]))
        layers = (shape.layers + 1) / 2
    elif "v_num_grad_steps" in editor.every:
        tokens = min(tokens, _CUDA_TOKENS if editor.device == "cuda" else _CPU_TOKENS)
    logits = 3 * 4 * min(tokens, 2.0 * batch * editor.rows) * shape.vocabulary
    return activations(shape, tokens, layers, editor.dtype) + logits


def training_work(study: Study, job: Job, shape: Shape) -> Work:
    """Return the work of training a hypernetwork, all its steps: an early stop cannot be known before."""
    whole = Job("edit", "", job.model, job.dataset, job.seed, job.editor, 0, 1)
    editor = _editor(study, whole, shape)
    every = editor.every
    texts = 5 * PROMPT  # ASSUME: an edit, two paraphrases and two texts of the neighbourhood
    above = shape.layers - min(editor.layers)
    losses = int(every["max_steps"]) * int(every["accumulate"]) * int(every["training_batch"])
    checks = int(every["max_steps"]) / int(every["validate_every"]) * int(every["training_facts"]) / 8
    size = shape.hidden + shape.intermediate
    alike = 2 if shape.gated else 1  # down, and the input projections with d_out and d_in exchanged
    network = 4.0 * (1 + (alike > 0)) * int(every["rank"]) * size
    lessons = min(_LESSONS, int(every["training_facts"]))
    held = lessons * (8 * shape.vocabulary + 2 * PROMPT * editor.matrices * size) * 4.0
    memory = weights(shape, editor.dtype) + 16 * network + held + 16 * editor.matrices * shape.matrix
    memory += activations(shape, texts, above, editor.dtype)
    return Work(
        start=15,
        passes=(
            Pass(int(every["training_facts"]), shape.layers, texts, 2, reads=10),
            Pass(losses, above, texts, 3, reads=10),
            Pass(checks, above, texts, reads=10),
        ),
        products=losses * 6 * network * PROMPT * editor.matrices / 2,
        memory=memory + (CONTEXT if editor.device == "cuda" else PROCESS),
        host=PROCESS + weights(shape, editor.dtype),
        disk=4 * network,
    )
