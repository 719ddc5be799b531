"""W_0 and W read once: sums, shares, quantiles of δ and the heat map, in blocks that stay in the cache."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.linalg.blas import dasum
from torch import Tensor

Matrix = npt.NDArray[np.float64]
_BLOCK = 1 << 16  # elements: two blocks in float64 are a core's second-level cache
_PARTS = 8  # of a matrix, summed by themselves, so that sums do not depend on the number of threads
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


@dataclass
class _Bracket:
    """Where a quantile is thought to lie, and what lies there.

    Attributes:
        low: its lower end, which belongs to it.
        high: its upper end, which belongs to it.
        reached: number of δ from the lower end on.
        inside: number of δ in it.
        found: these δ, in parts; not kept where the ends are equal, as all of them then are.
    """

    low: float
    high: float
    reached: int = 0
    inside: int = 0
    found: list[Matrix] = field(default_factory=list)


@dataclass
class _Part:
    """Sums over some rows."""

    columns: Matrix
    above: list[int]
    brackets: list[_Bracket]
    absolute: Matrix = field(default_factory=lambda: np.zeros(3))
    squares: Matrix = field(default_factory=lambda: np.zeros(3))
    nonzero: int = 0
    zeros: int = 0


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
    bands, cuts = (np.linspace(0, n, min(blocks, n) + 1).astype(int) for n in (height, width))
    ends = _brackets(before, after, quantiles)
    edges = np.linspace(0, height, min(_PARTS, height) + 1).astype(int)

    def part(number: int) -> _Part:
        rows = range(int(edges[number]), int(edges[number + 1]))
        return _swept(before, after, rows, bands, thresholds, ends)

    threads = min(torch.get_num_threads(), len(edges) - 1)
    if threads == 1:
        parts = [part(number) for number in range(len(edges) - 1)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(part, range(len(edges) - 1)))
    sums = np.add.reduceat(np.sum([one.columns for one in parts], axis=0), cuts[:-1], axis=1)
    absolute, squares = (
        np.sum([getattr(one, name) for one in parts], axis=0) for name in ("absolute", "squares")
    )
    zeros = sum(one.zeros for one in parts)
    usable = before.numel() - zeros
    levels = tuple(
        _level([one.brackets[i] for one in parts], q, usable) if np.isfinite(absolute[2]) else None
        for i, q in enumerate(quantiles)
    )
    return Sweep(
        size=before.numel(),
        absolute=tuple(map(float, absolute)),  # type: ignore[arg-type]
        squares=tuple(map(float, squares)),  # type: ignore[arg-type]
        nonzero=sum(one.nonzero for one in parts),
        zeros=zeros,
        above=tuple(sum(one.above[i] for one in parts) for i in range(len(thresholds))),
        levels=_partitioned(before, after, quantiles) if None in levels else levels,  # type: ignore[arg-type]
        tiles=sums / np.outer(np.diff(bands), np.diff(cuts)),
    )


def _swept(
    before: Tensor,
    after: Tensor,
    rows: range,
    bands: npt.NDArray[np.int_],
    thresholds: Sequence[float],
    ends: Sequence[tuple[float, float]],
) -> _Part:
    """Return the sums over some rows, which are read block by block."""
    width = before.shape[1]
    step = max(1, _BLOCK // width)
    part = _Part(
        np.zeros((len(bands) - 1, width)), [0] * len(thresholds), [_Bracket(low, high) for low, high in ends]
    )
    room = [torch.empty(step * width, dtype=torch.float64) for _ in range(2)]
    masks = [np.empty(step * width, dtype=bool) for _ in range(2)]
    for start in range(rows.start, rows.stop, step):
        count = min(step, rows.stop - start)
        size = count * width
        for own, matrix in zip(room, (before, after), strict=True):
            own[:size].view(count, width).copy_(matrix[start : start + count])
        old, new = (own[:size].numpy() for own in room)
        mask, other = (one[:size] for one in masks)
        with np.errstate(all="ignore"):  # what is not finite is told by the sums
            _sum(part, old, new, mask)
            first, last = np.searchsorted(bands, [start, start + count - 1], side="right") - 1
            for band in range(first, last + 1):
                own_rows = slice(max(bands[band] - start, 0), min(bands[band + 1] - start, count))
                part.columns[band] += np.add.reduce(new.reshape(count, width)[own_rows], axis=0)
            _compare(part, np.divide(new, old, out=old), mask, other, thresholds)
    return part


def _sum(part: _Part, old: Matrix, new: Matrix, mask: npt.NDArray[np.bool_]) -> None:
    """Add up a block, and turn W_0 into |W_0|, not a number where it is zero, and W into |ΔW|."""
    for place, values in enumerate((old, new)):
        part.absolute[place] += dasum(values)
        part.squares[place] += values @ values
    np.subtract(new, old, out=new)
    part.absolute[2] += dasum(new)
    part.squares[2] += new @ new
    part.nonzero += _count(np.not_equal(new, 0.0, out=mask))
    np.abs(new, out=new)
    np.abs(old, out=old)
    if old.min() == 0.0:
        part.zeros += _count(np.equal(old, 0.0, out=mask))
        old[mask] = np.nan  # below and above nothing


def _compare(
    part: _Part,
    delta: Matrix,
    mask: npt.NDArray[np.bool_],
    other: npt.NDArray[np.bool_],
    thresholds: Sequence[float],
) -> None:
    """Count the δ of a block above the thresholds and in the brackets, and keep the latter."""
    for number, threshold in enumerate(thresholds):
        part.above[number] += _count(np.greater(delta, threshold, out=mask))
    for bracket in part.brackets:
        bracket.reached += _count(np.greater_equal(delta, bracket.low, out=mask))
        np.logical_and(mask, np.less_equal(delta, bracket.high, out=other), out=mask)
        if bracket.low == bracket.high:
            bracket.inside += _count(mask)
        else:
            bracket.found.append(delta[mask])
            bracket.inside += len(bracket.found[-1])


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _brackets(before: Tensor, after: Tensor, quantiles: Sequence[float]) -> list[tuple[float, float]]:
    """Return the two values between which each quantile of δ lies, by a sample of the elements."""
    size = before.numel()
    if not quantiles or not size:
        return []
    chosen = np.random.default_rng(0).integers(0, size, min(_SAMPLE, max(size >> 5, 256)))
    row, col = (torch.from_numpy(one) for one in np.divmod(chosen, before.shape[1]))
    delta = np.sort(_delta(before[row, col], after[row, col]))
    ends = []
    for quantile in quantiles:
        middle = quantile * (len(delta) - 1)
        reach = _SPREAD * math.sqrt(quantile * (1 - quantile) * len(delta)) + 2
        low, high = math.floor(middle - reach), math.ceil(middle + reach)
        ends.append(
            (float(delta[low]) if low >= 0 else 0.0, float(delta[high]) if high < len(delta) else math.inf)
        )
    return ends


def _level(brackets: Sequence[_Bracket], quantile: float, count: int) -> float | None:
    """Return a quantile of `count` numbers from what lies in its bracket; None if it does not lie there."""
    place = quantile * (count - 1)
    first = math.floor(place) - (count - sum(one.reached for one in brackets))
    last = first + (place > math.floor(place))
    if not 0 <= first <= last < sum(one.inside for one in brackets):
        return None
    if brackets[0].low == brackets[0].high:
        return brackets[0].low
    found = np.concatenate([delta for one in brackets for delta in one.found])
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
