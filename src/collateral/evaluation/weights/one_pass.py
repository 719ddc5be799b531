"""W_0 and W read once: sums, shares, quantiles of δ and the heat map."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from collateral.evaluation.weights.kernels import SUMS, compiled

Matrix = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
_BLOCK = 1 << 16  # elements: two converted blocks stay in a core's second-level cache
_PARTS = 8  # of a matrix, at most, summed by themselves, so that sums do not depend on the number of threads
_LEAST = 1 << 19  # elements for which a part of their own is worth it
_SAMPLE = 1 << 16  # elements, at most, from which the quantiles' brackets are guessed
_SPREAD = 5.0  # standard errors on either side of a guessed quantile


@dataclass(frozen=True)
class Sweep:
    """What one pass over a matrix says. Triples are of W_0, W and ΔW = W - W_0; δ = |ΔW / W_0| where W_0 != 0.

    Attributes:
        size: number of elements.
        absolute: sums of absolute values.
        squares: sums of squares.
        nonzero: number of elements with ΔW != 0.
        zeros: number of elements with W_0 = 0.
        above: number of elements with δ above each threshold.
        levels: quantiles of δ, linear between order statistics; none where W_0 = 0.
        tiles: mean |ΔW| over a grid of blocks.
    """

    size: int
    absolute: tuple[float, float, float]
    squares: tuple[float, float, float]
    nonzero: int
    zeros: int
    above: tuple[int, ...]
    levels: tuple[float, ...]
    tiles: Matrix


@dataclass(frozen=True)
class _Part:
    """What some rows say.

    Attributes:
        sums: of |W_0|, |W|, W_0², W², ΔW².
        counts: of ΔW != 0, W_0 = 0, δ above each threshold, δ from each bracket's lower end on, δ in each bracket.
        tiles: sums of |ΔW| by the heat map's blocks.
        found: the δ in brackets; not those of a bracket whose ends are equal, as all of them then are.
    """

    sums: Matrix
    counts: Counts
    tiles: Matrix
    found: Matrix


def sweep(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    thresholds: Sequence[float] = (),
    quantiles: Sequence[float] = (),
    blocks: int = 1,
) -> Sweep:
    """Return the elementwise statistics of W_0, W and ΔW, all in float64.

    A quantile is an order statistic: a sample says between which two values it lies, the pass counts what is below
    and keeps what is between, and of that a selection finds it. Where the sample was wrong, and where weights are not
    finite, all δ are partitioned. Either way it is NumPy's linear quantile, bit for bit.

    Args:
        before: W_0.
        after: W.
        thresholds: of δ, for `above`.
        quantiles: of δ, in [0, 1], for `levels`.
        blocks: the grid of `tiles` has at most so many rows and columns.
    """
    before, after = before.detach().cpu(), after.detach().cpu()
    height, width = before.shape
    bands, cuts = (np.linspace(0, n, min(blocks, n) + 1).astype(np.int64) for n in (height, width))
    ends = _brackets(before, after, quantiles)
    count = min(_PARTS, height, before.numel() // _LEAST + 1)
    edges = np.linspace(0, height, count + 1).astype(int).tolist()
    kind = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    read = compiled(str(kind).removeprefix("torch."))

    limits = np.array(thresholds, float)

    def part(number: int) -> _Part:
        rows = range(edges[number], edges[number + 1])
        return _swept(read, (before, after), kind, rows, (bands, cuts), limits, ends)

    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        parts = [part(number) for number in range(count)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(part, range(count)))
    tiles = np.sum([one.tiles for one in parts], axis=0)
    moved = float(tiles.sum())
    sums = np.sum([one.sums for one in parts], axis=0).tolist()
    nonzero, zeros, *counts = np.sum([one.counts for one in parts], axis=0).tolist()
    levels: list[float | None] = [None] * len(quantiles)
    if math.isfinite(moved):
        own = zip(ends.tolist(), counts[len(limits) :], counts[len(limits) + len(ends) :], strict=False)
        found = [one.found for one in parts]
        levels = [
            _level(found, *one, q, before.numel() - zeros) for one, q in zip(own, quantiles, strict=True)
        ]
    return Sweep(
        size=before.numel(),
        absolute=(sums[0], sums[1], moved),
        squares=(sums[2], sums[3], sums[4]),
        nonzero=nonzero,
        zeros=zeros,
        above=tuple(counts[: len(limits)]),
        levels=_partitioned(before, after, quantiles) if None in levels else tuple(levels),  # type: ignore[arg-type]
        tiles=tiles / np.outer(np.diff(bands), np.diff(cuts)),
    )


def _swept(
    read: Any,
    matrices: tuple[Tensor, Tensor],
    kind: torch.dtype,
    rows: range,
    grid: tuple[Counts, Counts],
    thresholds: Matrix,
    ends: Matrix,
) -> _Part:
    """Return the sums over some rows, which are converted in blocks where the loop cannot read them as they are."""
    width = matrices[0].shape[1]
    bands, cuts = grid
    tiles = np.zeros((len(bands) - 1, len(cuts) - 1))
    sums, counts = np.zeros(SUMS), np.zeros(2 + len(thresholds) + 2 * len(ends), np.int64)
    lows, highs = np.ascontiguousarray(ends.T)
    plain = all(one.dtype == kind and one.is_contiguous() for one in matrices)
    step = len(rows) if plain else max(1, _BLOCK // width)
    kept = np.empty(step * width if len(ends) else 0)  # only what is written takes memory
    found = []
    for start in range(rows.start, rows.stop, step):
        own = slice(start, min(start + step, rows.stop))
        old, new = (
            np.require(one[own].to(kind).contiguous().numpy(), requirements=["C", "A"]) for one in matrices
        )
        size = read(old, new, start, bands, cuts, thresholds, lows, highs, sums, counts, tiles, kept)
        found.append(kept[:size].copy())
    return _Part(sums, counts, tiles, np.concatenate(found))


def _brackets(before: Tensor, after: Tensor, quantiles: Sequence[float]) -> Matrix:
    """Return the two values between which each quantile of δ lies, by a sample of the elements."""
    size = before.numel()
    if not quantiles or not size:
        return np.empty((0, 2))
    chosen = np.random.default_rng(0).integers(0, size, min(_SAMPLE, max(size >> 5, 256)))
    row, col = (torch.from_numpy(one) for one in np.divmod(chosen, before.shape[1]))
    delta = np.sort(_delta(before[row, col], after[row, col]))
    ends = []
    for quantile in quantiles:
        middle = quantile * (len(delta) - 1)
        reach = _SPREAD * math.sqrt(quantile * (1 - quantile) * len(delta)) + 2
        low, high = math.floor(middle - reach), math.ceil(middle + reach)
        ends.append((delta[low] if low >= 0 else 0.0, delta[high] if high < len(delta) else math.inf))
    return np.array(ends, float)


def _level(
    parts: Sequence[Matrix], ends: Sequence[float], reached: int, inside: int, quantile: float, count: int
) -> float | None:
    """Return a quantile of `count` numbers from what lies in its bracket; None if it does not lie there."""
    place = quantile * (count - 1)
    first = math.floor(place) - (count - reached)
    last = first + (place > math.floor(place))
    if not 0 <= first <= last < inside:
        return None
    low, high = ends
    if low == high:
        return low
    found = np.concatenate([delta[(delta >= low) & (delta <= high)] for delta in parts])
    found.partition([first, last])
    # the same line between the two
    return float(np.quantile(found[[first, last]], place - math.floor(place)))


def _partitioned(before: Tensor, after: Tensor, quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return quantiles of δ from all elements at once."""
    delta = _delta(before.flatten(), after.flatten())
    return tuple(map(float, np.quantile(delta, quantiles, overwrite_input=True))) if delta.size else ()


def _delta(before: Float[Tensor, " elements"], after: Float[Tensor, " elements"]) -> Matrix:
    """Return δ of the elements with W_0 != 0."""
    usable = before != 0
    old, new = before[usable].double().numpy(), after[usable].double().numpy()
    with np.errstate(all="ignore"):
        delta: Matrix = np.abs(new - old) / np.abs(old)
    return delta
