"""Time the weight statistics against one copy of W_0 and W, and against the same statistics of whole arrays.

The copy reads both matrices and writes both once: the share of its bandwidth is its time over that of a pass. The
plain version makes an array in float64 for each step and a QR decomposition for the singular values. All run in
turns; the table has medians. Counts and quantiles must be equal, sums and singular values to nine digits.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import compute_statistics
import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import LinearOperator, eigsh, svds
from torch import Tensor

from collateral.deltas.update import Factors
from collateral.evaluation.weights.one_pass import Sweep, sweep
from collateral.evaluation.weights.spectra import Matrix, frobenius, spectral_norm
from collateral.evaluation.weights.statistics import compute_heatmap as own_heatmap
from collateral.evaluation.weights.statistics import compute_statistics as own_statistics
from collateral.evaluation.weights.statistics import subtract
from collateral.io.versions import machine

SHAPES = ((576, 1536), (1600, 6400))
THRESHOLDS, QUANTILES, BLOCKS = (0.077, 0.171), (0.5, 0.8, 0.9, 0.99), 32
ROUNDS = 7
Plain = dict[str, Any]


def matrices(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Factors]:
    """Return W_0 with normal elements, W after four rank-one edits, and these as factors."""
    generator = torch.Generator().manual_seed(0)
    before = 0.02 * torch.randn(shape, generator=generator)
    left, right = (torch.randn(side, 4, generator=generator) for side in shape)
    update = Factors(1e-3 * left, right)
    return before, before + update.dense(), update


def plain_pass(before: Tensor, after: Tensor) -> Plain:
    """Return sums, counts and the heat map, each from arrays of the matrix's size."""
    old, new = before.double().numpy(), after.double().numpy()
    change = np.abs(new - old)
    usable = old != 0
    delta = change[usable] / np.abs(old)[usable]
    edges = [np.linspace(0, n, BLOCKS + 1).astype(int) for n in change.shape]
    sums = np.add.reduceat(np.add.reduceat(change, edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    return {
        "absolute": tuple(float(np.abs(one).sum()) for one in (old, new, change)),
        "squares": tuple(float(np.square(one).sum()) for one in (old, new, change)),
        "above": tuple(int((delta > t).sum()) for t in THRESHOLDS),
        "nonzero": int((change != 0).sum()),
        "zeros": int((~usable).sum()),
        "tiles": sums / np.outer(*map(np.diff, edges)),
        "delta": delta,
    }


def plain_range(weights: Tensor) -> tuple[float, float]:
    """Return the largest and the smallest singular value by the triangle of a QR decomposition."""
    matrix = weights.double().numpy()
    triangle = np.linalg.qr(matrix.T if matrix.shape[0] < matrix.shape[1] else matrix, mode="r")
    start = np.random.default_rng(0).standard_normal(len(triangle))

    def inverse(vector):
        return solve_triangular(triangle, solve_triangular(triangle, vector.ravel(), trans="T"))

    operator = LinearOperator(triangle.shape, matvec=inverse, dtype=np.float64)
    smallest = eigsh(operator, k=1, v0=start, return_eigenvectors=False, tol=1e-9)[0] ** -0.5
    return plain_norm(triangle), float(smallest)


def plain_norm(matrix: np.ndarray) -> float:
    """Return the largest singular value."""
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    return float(svds(matrix, k=1, v0=start, return_singular_vectors=False, tol=1e-9)[0])


def plain_all(before: Tensor, after: Tensor) -> Plain:
    """Return everything that the statistics and the heat map of one matrix say, plainly."""
    found = plain_pass(before, after)
    found["levels"] = tuple(np.quantile(found.pop("delta"), QUANTILES))
    found["range"] = [plain_range(one) for one in (before, after)]
    found["spectral_delta"] = plain_norm(subtract(before, after))
    return found


def own_all(before: Tensor, after: Tensor) -> dict[tuple[str, float | None], float]:
    """Return the rows of a matrix, as a job makes them."""
    rows = {(name, t): value for name, t, value in own_statistics(before, after, THRESHOLDS, QUANTILES)}
    own_heatmap(before, after, BLOCKS)  # a job has it from the same pass; here it is one more
    return rows


def check(plain: Plain, swept: Sweep, rows: dict[tuple[str, float | None], float]) -> None:
    """End the process if the two versions differ."""
    for name in ("above", "nonzero", "zeros", "levels"):
        if plain[name] != getattr(swept, name):
            sys.exit(f"{name}: {plain[name]} and {getattr(swept, name)}")
    for name in ("absolute", "squares", "tiles"):
        np.testing.assert_allclose(getattr(swept, name), plain[name], rtol=1e-11, err_msg=name)
    for when, (largest, smallest) in zip(("before", "after"), plain["range"], strict=True):
        found = [rows[f"spectral_{when}", None], rows[f"condition_{when}", None]]
        np.testing.assert_allclose(found, [largest, largest / smallest], rtol=1e-9, err_msg=when)
    np.testing.assert_allclose(rows["spectral_delta", None], plain["spectral_delta"], rtol=1e-9)


def size_of(update: Matrix | Factors) -> tuple[float, float]:
    """Return the Frobenius and the spectral norm."""
    return frobenius(update), spectral_norm(update)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a piece of work took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turns(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each piece of work, one after another in every round, the first not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            took = seconds(work)
            if number:
                times[name].append(took)
    return {name: compute_statistics.median(own) for name, own in times.items()}


def rows_of(shape: tuple[int, int], rounds: int) -> tuple[str, str]:
    """Return a row of the table of passes and one of the table of whole statistics."""
    before, after, update = matrices(shape)
    room = before.clone(), after.clone()
    check(
        plain_all(before, after), sweep(before, after, THRESHOLDS, QUANTILES, BLOCKS), own_all(before, after)
    )
    np.testing.assert_allclose(
        size_of(update), size_of(update.dense().double().numpy()), rtol=1e-5
    )  # float32
    fast = in_turns(
        {
            "copy": lambda: [one.copy_(other) for one, other in zip(room, (before, after), strict=True)],
            "sums": lambda: sweep(before, after, THRESHOLDS, (), BLOCKS),
            "plain sums": lambda: plain_pass(before, after),
            "with quantiles": lambda: sweep(before, after, THRESHOLDS, QUANTILES, BLOCKS),
            "closed": lambda: size_of(update),
        },
        rounds,
    )
    slow = in_turns(
        {
            "plain": lambda: plain_all(before, after),
            "ours": lambda: own_all(before, after),
            "dense": lambda: size_of(subtract(before, after)),
        },
        max(2, rounds // 2),
    )
    size = f"{shape[0]} x {shape[1]}"
    gigabytes = 4 * before.numel() * before.element_size() / 1e9  # both are read and written
    copy = fast["copy"]
    quantiles = fast["with quantiles"] - fast["sums"]
    first = (
        f"| {size} | {1e3 * copy:.2f} ms ({gigabytes / copy:.0f} GB/s) | {1e3 * fast['plain sums']:.0f} ms | "
        f"{1e3 * fast['sums']:.1f} ms | {fast['plain sums'] / fast['sums']:.1f} | {copy / fast['sums']:.0%} | "
        f"{1e3 * quantiles:.1f} ms |"
    )
    second = (
        f"| {size} | {slow['plain']:.2f} s | {slow['ours']:.2f} s | {slow['plain'] / slow['ours']:.1f} | "
        f"{1e3 * slow['dense']:.0f} ms | {1e3 * fast['closed']:.1f} ms | {slow['dense'] / fast['closed']:.0f} |"
    )
    return first, second


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = [rows_of(shape, chosen.rounds) for shape in SHAPES]
    about = f"{machine()['processor']}, {chosen.threads} threads, float32, {chosen.rounds} rounds in turns"
    heads = (
        "matrix | copy of W_0 and W | sums, shares, heat map: whole arrays | ours | ratio | "
        "of the copy's bandwidth | quantiles on top",
        "matrix | all statistics, plain | ours | ratio | size of ΔW, from the matrices | from factors | ratio",
    )
    lines = [about]
    for place, head in enumerate(heads):
        lines += ["", f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(row[place] for row in found)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
