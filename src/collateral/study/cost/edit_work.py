"""What editing takes, from an editor's settings and what its method declares (`editing.cost`). Torch-free."""

import math

from collateral.deltas.limits import MOST_RANKS
from collateral.editing.registry import declaration, edited_layers, regularizer_kind
from collateral.study.cost.work import PROMPT, ModelJob, Work
from collateral.study.dtypes import WIDTH

# ASSUME: tokens
SUFFIX = 6  # from the subject's last token to the target's end
ANSWER = 3  # tokens of an answer, of which KN explains each
_STEP_TOKENS = 192, 16384  # on a CPU and a GPU, of one pass of an optimization, see `editing.algorithms`
_LESSONS = 512  # of a training that stay in memory, see `editing.train_hypernetwork`


class Editor:
    """A method with all its settings on a model's shape; `cost` is what the method declares.

    Attributes:
        layers: that its settings name.
        matrices: number of matrices that it may change.
        elements: of these matrices.
    """

    def __init__(self, run: ModelJob) -> None:
        study, model, editor = run.study, run.job.model, run.job.editor
        self.run, self.shape, self.recipe = run, run.shape, study.recipe(model, editor)
        method = self.recipe["method"]
        declared = declaration(method)
        self.cost, self.flags = declared.cost, declared.flags
        self.settings = {**declared.defaults, **self.recipe["settings"]}
        self.layers = edited_layers(method, self.recipe["settings"])
        self.moments = len(study.moment_layers(model, editor))
        root = self.cost.get("root", False)
        self.root = bool(self.settings[root] if isinstance(root, str) else root)
        in_layer = {"down": 1, "mlp": 3 if self.shape.gated else 2, "columns": 1, "nothing": 0}
        changes = self.cost.get("changes", "down")
        layers = self.shape.layers if changes == "columns" else len(self.layers)
        self.matrices = layers * in_layer[changes]
        self.elements = self.matrices * self.shape.matrix
        self.kind = regularizer_kind(self.recipe["regularizer"]["name"])

    def state(self) -> float:
        """Return the bytes of what an editor carries from one checkpoint to the next."""
        # AlphaEdit's root is as wide as the null space, which is less
        per_layer = 8.0 * self.shape.intermediate**2 * self.root
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
        changed = self.elements * min(3.5, 5.7 * share) * WIDTH[self.run.model["dtype"]] / 4
        if not self.cost.get("low_rank") or self.kind not in {"identity", "mask"} or batch > MOST_RANKS:
            return changed
        bits = -sum(p * math.log2(p) for p in (kept, 1 - kept) if p > 0)  # of a mask, an element
        factors = 8 * batch * self.matrices * (self.shape.hidden + self.shape.intermediate)
        return min(changed, operations * (factors + self.elements * bits / 8))


def compute_edit_work(run: ModelJob) -> Work:
    """One link of a chain, or some single edits, with each edit's own probes."""
    editor, job, shape = Editor(run), run.job, run.shape
    cost, elements = editor.cost, editor.elements
    facts = job.edits - job.start
    batch = min(editor.recipe["batch_size"], facts)
    operations = -(-facts // batch)

    # one pass of the whole model, the steps, and one pass through the edited layers for each further one of them
    steps, texts = cost.get("steps", 0), cost.get("texts", "prompts")
    steps = int(editor.settings[steps]) if isinstance(steps, str) else steps
    depth: float = shape.layers - max(editor.layers, default=0)
    rows, tokens, times = float(batch), PROMPT, operations * steps
    if texts == "contexts":
        contexts = run.study.settings["contexts"]
        count = len(contexts["explicit"]) or 1 + sum(number for _, number in contexts["lengths"])
        samples = int(editor.settings.get("context_samples", 0))
        # and the prompt of the KL term
        rows, tokens = batch * (1.0 + (min(count, 1 + samples) if samples else count)), SUFFIX
    elif texts == "integral":
        points = shape.layers * steps
        rows, tokens, depth = min(points, int(editor.settings["batch"])), 1, (shape.layers + 1) / 2
        times = operations * ANSWER * -(-points // rows)
    first, reads = (batch, rows) if texts == "integral" else (rows, 2 * rows)
    backward = 3 if cost.get("weight_gradients") else 2
    seconds = 12 + run.probing(facts)
    if steps:
        seconds += run.passes(operations, shape.layers, first * PROMPT)
        seconds += run.passes(times, depth, rows * tokens, backward, reads)
        seconds += run.passes(operations * max(0, len(editor.layers) - 1), len(editor.layers), rows * tokens)

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
    seconds += run.algebra(once + operations * each)

    # memory: W_0, the accumulated and the new update; moments and one that is factorized; one step; the state
    held = (4.0 if cost.get("changes") == "columns" else 16.0) * elements
    if editor.moments:
        kept = 1.0 if editor.root else 17 / 32  # a factor is kept by panels
        held += 8 * square * (kept * editor.moments + 3)
    in_step = rows if texts == "integral" else min(rows * tokens, _STEP_TOKENS[run.on_gpu])
    held += run.activations(in_step, depth)
    held += 12 * min(in_step, 2 * batch if texts == "integral" else reads) * shape.vocabulary
    held += editor.state()

    left = 0 if job.rule == "edit_singly" else editor.stored(operations, batch, facts) + editor.state()
    return run.work(seconds, held, host=8 * square * editor.moments, disk=2e3 * facts + left)


def compute_training_work(run: ModelJob) -> Work:
    """All steps of a hypernetwork's training, since an early stop cannot be known before."""
    editor, shape = Editor(run), run.shape
    facts, steps = int(editor.settings["training_facts"]), int(editor.settings["max_steps"])
    texts = 5 * PROMPT  # ASSUME: an edit, two paraphrases and two texts of the neighbourhood
    above = shape.layers - min(editor.layers)
    losses = steps * int(editor.settings["accumulate"]) * int(editor.settings["training_batch"])
    checks = steps / int(editor.settings["validate_every"]) * facts / 8
    sides = shape.hidden + shape.intermediate
    network = 8.0 * int(editor.settings["rank"]) * sides
    lessons = min(_LESSONS, facts) * 4.0 * (8 * shape.vocabulary + 2 * PROMPT * editor.matrices * sides)
    seconds = 15 + run.passes(facts, shape.layers, texts, 2, reads=10)
    seconds += run.passes(losses, above, texts, 3, reads=10) + run.passes(checks, above, texts, reads=10)
    seconds += run.algebra(losses * 3 * network * PROMPT * editor.matrices)
    held = 16 * network + lessons + 16 * editor.elements + run.activations(texts, above)
    return run.work(seconds, held, disk=4 * network)
