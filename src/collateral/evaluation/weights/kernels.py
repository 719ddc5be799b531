"""The loop over the elements of W_0 and W, compiled: each is read once, and the order of summation is written down.

Sums are kept in lanes: element k of a chunk goes to lane k modulo 64, and the lanes are added up at the end. So the
compiler may take as many elements at once as a machine can, and every machine finds the same bits: nothing permits
it to reorder additions or to fuse them with products.
"""

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any, no_type_check

import llvmlite.binding
import numba
import numpy as np
from numba import njit

log = logging.getLogger(__name__)

LANES = 64
CHUNK = 4 * LANES  # elements, of one row
SUMS = 5  # of |W_0|, |W|, W_0², W², ΔW², each in its lanes; that of |ΔW| comes from the heat map
_DELTA = (
    SUMS * LANES
)  # where a chunk's δ begin, behind the lanes: the compiler asks less of one array than of two


@njit(error_model="numpy")
@no_type_check
def _element(old, new):
    """Return |W_0|, |W|, |ΔW|, W_0², W², ΔW² and δ of one element."""
    old, new = np.float64(old), np.float64(new)
    change = new - old
    size, moved = abs(old), abs(change)
    return size, abs(new), moved, old * old, new * new, change * change, moved / size if size != 0 else np.nan


@njit(error_model="numpy")
@no_type_check
def _add(old, new, columns, room):
    """Add a chunk to the lanes and to its columns, and leave its δ; return how many moved, and how many W_0 are 0."""
    nonzero = zeros = 0
    for k in range(LANES):
        a0, b0, c0, aa0, bb0, cc0, room[k + _DELTA] = _element(old[k], new[k])
        a1, b1, c1, aa1, bb1, cc1, room[k + _DELTA + LANES] = _element(old[k + LANES], new[k + LANES])
        a2, b2, c2, aa2, bb2, cc2, room[k + _DELTA + 2 * LANES] = _element(
            old[k + 2 * LANES], new[k + 2 * LANES]
        )
        a3, b3, c3, aa3, bb3, cc3, room[k + _DELTA + 3 * LANES] = _element(
            old[k + 3 * LANES], new[k + 3 * LANES]
        )
        room[k] += (a0 + a1) + (a2 + a3)
        room[k + LANES] += (b0 + b1) + (b2 + b3)
        room[k + 2 * LANES] += (aa0 + aa1) + (aa2 + aa3)
        room[k + 3 * LANES] += (bb0 + bb1) + (bb2 + bb3)
        room[k + 4 * LANES] += (cc0 + cc1) + (cc2 + cc3)
        columns[k] += c0
        columns[k + LANES] += c1
        columns[k + 2 * LANES] += c2
        columns[k + 3 * LANES] += c3
        nonzero += int(c0 != 0) + int(c1 != 0) + int(c2 != 0) + int(c3 != 0)
        zeros += int(a0 == 0) + int(a1 == 0) + int(a2 == 0) + int(a3 == 0)
    return nonzero, zeros


@njit(error_model="numpy")
@no_type_check
def _above(delta, threshold):
    """Return how many δ of a chunk are above a threshold; what is not a number is not."""
    count = 0
    for k in range(CHUNK):
        count += delta[k] > threshold
    return count


@njit(error_model="numpy")
@no_type_check
def _bracket(delta, lows, highs, counts, inside, kept, size):
    """Count the δ of a chunk from each bracket's lower end on and within it, and keep the latter; return how many."""
    for k in range(CHUNK):
        inside[k] = 0
    some = 0
    for i in range(len(lows)):
        low, high = lows[i], highs[i]
        wide = low < high  # else all in it are equal, and their number is enough
        reached = within = 0
        for k in range(CHUNK):
            own = (delta[k] >= low) & (delta[k] <= high)
            reached += delta[k] >= low
            within += own
            inside[k] |= own & wide
        counts[i] += reached
        counts[len(lows) + i] += within
        some += within if wide else 0
    if some:
        for k in range(CHUNK):
            if inside[k]:
                kept[size] = delta[k]
                size += 1
    return size


@njit(error_model="numpy")
@no_type_check
def _close(columns, cuts, tiles):
    """Add a band's columns to its tiles, and clear them."""
    for i in range(len(tiles)):
        total = 0.0
        for k in range(cuts[i], cuts[i + 1]):
            total += columns[k]
            columns[k] = 0.0
        tiles[i] += total


@no_type_check
def _swept(before, after, first, bands, cuts, thresholds, lows, highs, sums, counts, tiles, kept):
    """Add up some rows; return how many δ were kept.

    Args:
        before: rows of W_0.
        after: the same rows of W.
        first: the number of the first.
        bands: the heat map's rows begin at these, the last ends at the last.
        cuts: the same of its columns.
        thresholds: of δ.
        lows: lower ends of the quantiles' brackets.
        highs: their upper ends.
        sums: added to: see SUMS.
        counts: added to: ΔW != 0, W_0 = 0, δ above each threshold, from each lower end on, within each bracket.
        tiles: added to: sums of |ΔW| by the heat map's rows and columns.
        kept: written: the δ in brackets.
    """
    height, width = before.shape
    room = np.zeros(_DELTA + CHUNK)
    delta = room[_DELTA:]
    inside = np.zeros(CHUNK, np.int64)
    # what a row's last chunk lacks are zeros, which change no sum
    old_tail, new_tail = np.zeros(CHUNK, before.dtype), np.zeros(CHUNK, after.dtype)
    columns = np.zeros(-(-width // CHUNK) * CHUNK)
    band = size = nonzero = 0
    zeros = height * (width - len(columns))
    while bands[band + 1] <= first:
        band += 1
    for row in range(height):
        if first + row == bands[band + 1]:
            _close(columns, cuts, tiles[band])
            band += 1
        for left in range(0, width, CHUNK):
            old, new = before[row, left : left + CHUNK], after[row, left : left + CHUNK]
            if left + CHUNK > width:
                for k in range(width - left):
                    old_tail[k], new_tail[k] = old[k], new[k]
                old, new = old_tail, new_tail
            moved, none = _add(old, new, columns[left : left + CHUNK], room)
            nonzero += moved
            zeros += none
            for i in range(len(thresholds)):
                counts[2 + i] += _above(delta, thresholds[i])
            if len(lows):
                size = _bracket(delta, lows, highs, counts[2 + len(thresholds) :], inside, kept, size)
    _close(columns, cuts, tiles[band])
    counts[0] += nonzero
    counts[1] += zeros
    for i in range(SUMS):
        for k in range(LANES):
            sums[i] += room[i * LANES + k]
    return size


@functools.cache
def compiled(kind: str) -> Any:
    """Return `_swept` as machine code, from numba's cache where it is there.

    The cache is in NUMBA_CACHE_DIR, or beside this file, or the user's where that may not be written. Each of its
    files is named by all that decides its content, so that no job takes what another wrote for other code or another
    machine. Without a usable cache it is compiled anew, which takes about two seconds.

    Args:
        kind: `float32` or `float64`, that of the weights.
    """
    processor = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    about = repr((Path(__file__).read_bytes(), numba.__version__, processor, kind))
    _swept.__qualname__ = f"swept-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
    rows, reals, counts = f"{kind}[:,::1]", "float64[::1]", "int64[::1]"
    signature = (
        f"int64({rows}, {rows}, int64, {counts}, {counts}, {reals}, {reals}, {reals}, {reals}, {counts}, "
        f"float64[:,::1], {reals})"
    )
    try:
        return njit(signature, error_model="numpy", nogil=True, cache=True)(_swept)
    except Exception as error:  # of the disk or of what lies there; one in the code comes again
        log.info("compiled without numba's cache: %s", error)
        return njit(signature, error_model="numpy", nogil=True)(_swept)
