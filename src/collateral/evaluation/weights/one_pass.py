"""Sums, shares, quantiles of δ and the heat map of an edited matrix, from one pass over W_0 and W in float64.

The order of summation is written down, so that every machine finds the same bits: element k of a chunk of 256 of a
row goes to lane k modulo 64, chunk after chunk, and the lanes are added up at the end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Matrix = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
LANES = 64
CHUNK = 4 * LANES  # elements, of one row
SUMS = 5  # of |W_0|, |W|, W_0², W², ΔW²; that of |ΔW| comes from the heat map
_BLOCK = (
    1 << 16
)  # elements that are held in float64 at a time; sums of matrices that are converted depend on it
_PARTS = 8  # of a matrix, at most, summed by themselves
_PART_SIZE = 1 << 19  # elements, at least, of a part


@dataclass(frozen=True)
class Sweep:
    """Elementwise statistics. Triples are of W_0, W and ΔW = W - W_0; δ = |ΔW / W_0| where W_0 != 0.

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


def sweep(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    thresholds: Sequence[float] = (),
    quantiles: Sequence[float] = (),
    blocks: int = 1,
) -> Sweep:
    """Return the elementwise statistics of W_0, W and ΔW, all in float64.

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
    delta = np.empty(before.numel() if quantiles else 0)  # δ of the elements with W_0 != 0 so far
    parts = []
    filled = 0
    edges = np.linspace(0, height, min(_PARTS, height, before.numel() // _PART_SIZE + 1) + 1).astype(int)
    for start, stop in pairwise(edges.tolist()):
        part = _Totals((bands, cuts), thresholds)
        for rows in _split_rows(before, after, start, stop):
            for moved in part.add_rows(before, after, rows):
                if quantiles:
                    delta[filled : filled + len(moved)] = moved
                    filled += len(moved)
        parts.append(part)
    tiles = np.sum([part.tiles for part in parts], axis=0)
    sums = np.sum([part.sums for part in parts], axis=0).tolist()
    above = np.sum([part.above for part in parts], axis=0).tolist()
    levels = np.quantile(delta[:filled], quantiles, overwrite_input=True).tolist() if filled else []
    return Sweep(
        size=before.numel(),
        absolute=(sums[0], sums[1], float(tiles.sum())),
        squares=(sums[2], sums[3], sums[4]),
        nonzero=sum(part.nonzero for part in parts),
        zeros=sum(part.zeros for part in parts),
        above=tuple(above),
        levels=tuple(levels),
        tiles=tiles / np.outer(np.diff(bands), np.diff(cuts)),
    )


def _split_rows(before: Tensor, after: Tensor, start: int, stop: int) -> list[range]:
    """Return the rows of a part in groups, each with lanes of its own: one, if nothing is converted."""
    kind = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    if all(matrix.dtype == kind and matrix.is_contiguous() for matrix in (before, after)):
        return [range(start, stop)]
    step = max(1, _BLOCK // before.shape[1])
    return [range(first, min(first + step, stop)) for first in range(start, stop, step)]


class _Totals:
    """Sums and counts over some rows.

    Attributes:
        sums: of |W_0|, |W|, W_0², W², ΔW².
        nonzero: number of elements with ΔW != 0.
        zeros: number of elements with W_0 = 0.
        above: number of elements with δ above each threshold.
        tiles: sums of |ΔW| by the heat map's blocks.
    """

    def __init__(self, grid: tuple[Counts, Counts], thresholds: Sequence[float]):
        self._bands, self._cuts = grid
        self._thresholds = thresholds
        self.sums = np.zeros(SUMS)
        self.nonzero = self.zeros = 0
        self.above = np.zeros(len(thresholds), np.int64)
        self.tiles = np.zeros((len(self._bands) - 1, len(self._cuts) - 1))

    def add_rows(self, before: Tensor, after: Tensor, rows: range) -> Iterator[Matrix]:
        """Add some rows; yield δ of the elements with W_0 != 0, block by block."""
        width = before.shape[1]
        padded = -(-width // CHUNK) * CHUNK  # what a row's last chunk lacks are zeros, which change no sum
        lanes, columns = np.zeros((SUMS, LANES)), np.zeros(padded)
        inside = self._bands[(self._bands > rows.start) & (self._bands < rows.stop)].tolist()
        step = max(1, _BLOCK // width)
        for start, stop in pairwise(sorted({*rows[::step], *inside, rows.stop})):
            old, new = np.zeros((2, stop - start, padded))
            old[:, :width], new[:, :width] = (
                matrix[start:stop].double().numpy() for matrix in (before, after)
            )
            with np.errstate(all="ignore"):
                change = np.abs(new - old)
                size = np.abs(old)
                terms = (size, np.abs(new), old * old, new * new, change * change)
                lanes = np.stack([_add_lanes(*pair) for pair in zip(lanes, terms, strict=True)])
                columns = np.add.reduce([columns, *change])
                usable = size[:, :width] != 0
                delta = change[:, :width][usable] / size[:, :width][usable]
            self.nonzero += int(np.count_nonzero(change))
            self.zeros += usable.size - int(np.count_nonzero(usable))
            for i, threshold in enumerate(self._thresholds):
                self.above[i] += np.count_nonzero(delta > threshold)
            yield delta
            if stop in inside or stop == rows.stop:
                band = int(np.searchsorted(self._bands, start, side="right")) - 1
                self._close_band(band, columns)
                columns = np.zeros(padded)
        for lane in lanes.T:
            self.sums += lane

    def _close_band(self, band: int, columns: Matrix) -> None:
        """Add a band's columns to its tiles, from left to right."""
        for tile, (left, right) in enumerate(pairwise(self._cuts.tolist())):
            self.tiles[band, tile] += np.cumsum(columns[left:right])[-1]


def _add_lanes(lanes: Matrix, values: Matrix) -> Matrix:
    """Return the lanes with the chunks of some rows added to them, one after another."""
    first, second, third, fourth = values.reshape(-1, 4, LANES).swapaxes(0, 1)
    return np.asarray(np.add.reduce(np.concatenate([lanes[None], (first + second) + (third + fourth)])))
