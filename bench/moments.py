"""Time the second moments of one and of six layers against plain full forward passes on the embedded model.

The baseline is what a plain script does: for each layer a pass over the text through all of the model in float32 (but
not its projection on the vocabulary), with a hook at the layer and Kᵀ K in full. Both get the same windows, in turns;
C must be the baseline's.
"""

import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from behaviour import embedded_model
from torch import Tensor

from collateral.data.corpus import documents
from collateral.editing.prepare.cholesky import add_upper
from collateral.editing.prepare.second_moments import cut_windows, measure_moments
from collateral.io.versions import machine
from collateral.models.hooks import listen_to_input
from collateral.models.language_model import LanguageModel

ROUNDS, WINDOW, BATCH = 3, 256, 4
TOKENS = 2 * WINDOW * BATCH  # enough for C not to be singular, and few: the time of each is the same
TOLERANCE = 1e-5
CASES = ((5,), (3, 4, 5, 6, 7, 8))  # ROME's layer, and as many as MEMIT's on GPT-J
SIZES = (1536, 4096)  # of keys


def plain_moment(model: LanguageModel, layer: int, texts: Sequence[str]) -> Tensor:
    """Return C of one layer by full passes."""
    d_in = model.matrix(model.down_name(layer)).shape[1]
    total, seen = torch.zeros(d_in, d_in, dtype=torch.float64), 0

    def add(keys: Tensor) -> None:
        flat = keys.reshape(-1, d_in)
        total.add_((flat.T @ flat).double())

    for rows in cut_windows(model, texts, TOKENS, WINDOW, BATCH):
        with torch.no_grad(), listen_to_input(model.down(layer), add):
            model.network.base_model(input_ids=rows, use_cache=False)
        seen += rows.numel()
    return total / seen


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def compared(model: LanguageModel, layers: Sequence[int], texts: Sequence[str]) -> str:
    """Return one row of the table.

    Raises:
        SystemExit: C is not the baseline's.
    """
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        before, theirs = timed(lambda: {layer: plain_moment(model, layer, texts) for layer in layers})
        after, ours = timed(lambda: measure_moments(model, layers, texts, TOKENS, WINDOW, BATCH))
        ratios.append(before / after)
        seconds.append(after)
    far = max(relative(ours[layer].matrix, theirs[layer]) for layer in layers)
    if far > TOLERANCE:
        sys.exit(f"layers {layers}: C differs by {far:.1e}")
    passed = max(layers) + 1  # of layers, in one pass; the baseline's go through all, once for each layer
    share = 1 - passed / (model.layers * len(layers))
    saved = 1 - 1 / statistics.median(ratios)
    said = f"{', '.join(map(str, layers))} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    return (
        f"| {said} | {saved:.0%} | {share:.0%} | {0.9 * share:.0%} "
        f"| {1e6 * statistics.median(seconds) / TOKENS:.0f} µs | {far:.1e} |"
    )


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of two matrices, as a share of the largest element."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def updated(size: int) -> str:
    """Return one row of the table of updates alone: Kᵀ K in full and summed, against the upper half.

    Raises:
        SystemExit: the upper halves differ.
    """
    keys = torch.randn(1, WINDOW * BATCH, size, generator=torch.Generator().manual_seed(size))
    full, half = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))

    def plain() -> None:
        full.add_((keys[0].T @ keys[0]).double())

    pairs = [(timed(plain)[0], timed(partial(add_upper, half, keys))[0]) for _ in range(ROUNDS)]
    far = relative(half.triu(), full.triu())
    if far > TOLERANCE:
        sys.exit(f"keys of {size}: the sums differ by {far:.1e}")
    ratios = [before / after for before, after in pairs]
    said = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {size} | {said} | {1000 * statistics.median(after for _, after in pairs):.0f} ms | {far:.1e} |"


def main() -> None:
    """Print the tables."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    model = embedded_model()
    texts = list(documents({"python_docs": True}))
    for layers in CASES:
        measure_moments(
            model, layers[:1], texts, TOKENS, WINDOW, BATCH
        )  # the first pass of a process is slower
    sys.stdout.write(
        f"{machine()['processor']}, 1 thread, float32, {TOKENS} tokens, {ROUNDS} rounds in turns\n\n"
        "| layers | full / ours (range) | time saved | layers saved | target | ours, a token | difference |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for layers in CASES:
        sys.stdout.write(f"{compared(model, layers, texts)}\n")
        sys.stdout.flush()
    sys.stdout.write(
        "\n| size of keys | Kᵀ K in full / upper half (range) | ours | max. difference |\n|---|---|---|---|\n"
    )
    for size in SIZES:
        sys.stdout.write(f"{updated(size)}\n")


if __name__ == "__main__":
    main()
