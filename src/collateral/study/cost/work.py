"""What a job computes, holds and writes: passes of the model, dense algebra, bytes. Torch-free.

Only sizes and settings decide; how fast a machine is, is in `rates`. Every number is an estimate before the fact.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from collateral.study.cost.model_shape import Shape
from collateral.study.dtypes import WIDTH

# ASSUME: lengths in tokens, of zsRE's and CounterFact's prompts (median 9 to 12, contexts up to 10 before them).
PROMPT = 16  # of a prompt with its context and target
SUFFIX = 6  # from the subject's last token to the target's end
TEXTS = 3  # that KN explains for one fact: a prompt for each token of the answer
# Measured on a CPU (SmolLM2-135M): resident memory of a process that has imported torch and transformers.
PROCESS = 0.6e9
CONTEXT = 0.6e9  # device memory that CUDA itself takes; literature
LIGHT = 0.3e9  # resident memory of a process without torch


@dataclass(frozen=True)
class Pass:
    """Some passes of a batch of tokens through layers of the model.

    Attributes:
        count: how many.
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

    def flops(self, shape: Shape) -> float:
        """Return multiplications and additions: two a parameter and token (attention's own products left out)."""
        one = self.layers * self.tokens * shape.layer + self.reads * shape.head
        return 2 * self.count * self.cost * one


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
    memory: float = LIGHT
    host: float = LIGHT
    disk: float = 0

    def flops(self, shape: Shape | None) -> float:
        """Return the arithmetic of all its passes and products."""
        return self.products + (sum(one.flops(shape) for one in self.passes) if shape else 0)


def weights(shape: Shape, dtype: str) -> float:
    """Return the bytes of a model's weights in memory."""
    return shape.parameters * WIDTH[dtype]


def activations(shape: Shape, tokens: float, layers: float, dtype: str) -> float:
    """Return the bytes that a backward pass keeps: about ten vectors of the stream and four of the MLP a layer.

    For SmolLM2-135M, 192 tokens and 24 layers it is 219 MB; 241 MB were measured.
    """
    return tokens * layers * (10 * shape.hidden + 4 * shape.intermediate) * WIDTH[dtype]


def probing(shape: Shape, facts: float, probes: float, new_tokens: int) -> tuple[Pass, ...]:
    """Return the passes that probe some facts: the prompts, two targets from their cache, a free generation."""
    return (
        Pass(facts, shape.layers, probes * PROMPT, reads=probes),
        Pass(2 * facts, shape.layers, 2 * probes, reads=2 * probes),
        Pass(facts * new_tokens, shape.layers, probes, reads=probes),
    )


def kept_share(regularizer: Mapping[str, object], edits: int) -> float:
    """Return the share of a matrix's elements that some masked updates change together, at most."""
    # ASSUME: masks of single edits are independent, which is the largest union they can be expected to have.
    if regularizer["name"] not in {"rect", "random", "magnitude"}:
        return 1.0
    keep = float(str(regularizer["keep"])) / 100
    return 1 - (1 - keep) ** max(edits, 1)


def entropy(share: float) -> float:
    """Return the bits that say of one element whether it belongs to so large a random share."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def delta_bytes(elements: float, share: float, dtype: str) -> float:
    """Return the bytes of a stored update.

    Measured on the 135M model in float32: 3.3 to 3.5 bytes an element of a dense update, 5.7 a changed element of
    a masked one (its place costs too).
    """
    return elements * min(3.5, 5.7 * share) * WIDTH[dtype] / 4
