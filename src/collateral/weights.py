"""What an edited matrix looks like beside the unedited one: the weight statistics of both papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from jaxtyping import Float
from scipy.sparse.linalg import svds
from torch import Tensor

from collateral.deltafile import Increment, read_chain, rebuild
from collateral.files import whole_file
from collateral.modelfolder import DTYPES, stored_tensor, verified_manifest
from collateral.recipes import edited_layers
from collateral.tensorfile import read_tensors

Matrix = npt.NDArray[np.float64]

SCHEMA = {"parameter": pl.String, "statistic": pl.String, "threshold": pl.Float64, "value": pl.Float64}
HEATMAP_SCHEMA = {
    "parameter": pl.String,
    "block_row": pl.Int32,
    "block_col": pl.Int32,
    "value": pl.Float64,
}
Row = tuple[str, float | None, float]


def statistics(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    thresholds: Sequence[float],
    quantiles: Sequence[float],
) -> list[Row]:
    """Return (statistic, threshold, value) rows for one matrix, with ΔW = after - before.

    Those of `change_statistics`, and of each of W_0 (before), W (after) and ΔW (delta):

    mean_abs_*           mean |W|: what the D4S paper calls the L1 norm
    l1_*, fro_*, spectral_*   entrywise 1-norm, Frobenius norm, largest singular value

    Args:
        before: W_0.
        after: W.
        thresholds: of delta_share.
        quantiles: of delta_quantile, in [0, 1].
    """
    rows = change_statistics(before, after, thresholds, quantiles)
    old, new = _array(before), _array(after)
    for name, matrix in (("before", old), ("after", new), ("delta", new - old)):
        total = float(np.abs(matrix).sum())
        rows += [
            (f"mean_abs_{name}", None, total / matrix.size),
            (f"l1_{name}", None, total),
            (f"fro_{name}", None, float(np.linalg.norm(matrix))),
            (f"spectral_{name}", None, spectral_norm(matrix)),
        ]
    return rows


def change_statistics(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    thresholds: Sequence[float],
    quantiles: Sequence[float],
) -> list[Row]:
    """Return the rows that say how far the elements moved, and nothing of the matrices themselves.

    manhattan            sum |ΔW|                                        (RECT section 4.4, Table 1)
    delta_share t        share of delta = |ΔW / W_0| above t             (RECT section 4.4)
    delta_quantile q     q-quantile of delta
    nonzero_share        share of elements with ΔW != 0
    zero_weights         number of W_0 = 0, which have no delta and are left out of its share and quantiles

    Args:
        before: W_0.
        after: W.
        thresholds: of delta_share.
        quantiles: of delta_quantile, in [0, 1].
    """
    old, new = _array(before), _array(after)
    size = np.abs(new - old)
    usable = old != 0
    delta = size[usable] / np.abs(old[usable])
    rows: list[Row] = [("manhattan", None, float(size.sum()))]
    rows += [("delta_share", t, float((delta > t).mean()) if delta.size else 0.0) for t in thresholds]
    if delta.size:
        levels = np.quantile(delta, quantiles)
        rows += [("delta_quantile", q, float(level)) for q, level in zip(quantiles, levels, strict=True)]
    rows.append(("nonzero_share", None, float((size != 0).mean())))
    rows.append(("zero_weights", None, float((~usable).sum())))
    return rows


def _array(matrix: Float[Tensor, "d_out d_in"]) -> Matrix:
    values: Matrix = matrix.double().cpu().numpy()
    return values


def spectral_norm(matrix: Matrix) -> float:
    """Return the largest singular value, by Lanczos iteration from a fixed start."""
    if not matrix.any():
        return 0.0
    if min(matrix.shape) < 3:  # too small for the iteration
        return float(np.linalg.norm(matrix, ord=2))
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    return float(svds(matrix, k=1, v0=start, return_singular_vectors=False, tol=1e-9)[0])


def heatmap(
    before: Float[Tensor, "d_out d_in"], after: Float[Tensor, "d_out d_in"], blocks: int
) -> list[tuple[int, int, float]]:
    """Return (block_row, block_col, mean |ΔW|) over a grid of at most `blocks x blocks` blocks (RECT Figure 5)."""
    size = np.abs(after.double().cpu().numpy() - before.double().cpu().numpy())
    edges = [np.linspace(0, n, min(blocks, n) + 1).astype(int) for n in size.shape]
    sums = np.add.reduceat(np.add.reduceat(size, edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    means = sums / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return [(i, j, float(means[i, j])) for i in range(means.shape[0]) for j in range(means.shape[1])]


def unchanged_rows(thresholds: Sequence[float]) -> list[Row]:
    """Return the rows of an editor that touches no matrix: the distances are zero by definition."""
    rows: list[Row] = [("manhattan", None, 0.0), ("nonzero_share", None, 0.0), ("fro_delta", None, 0.0)]
    return rows + [("delta_share", threshold, 0.0) for threshold in thresholds]


def write_weights(
    rows: Mapping[str, Sequence[Row]],
    blocks: Mapping[str, Sequence[tuple[int, int, float]]],
    path: Path,
    heatmap_path: Path,
) -> None:
    """Write the statistics and the heat map of all edited matrices, one tidy row a number."""
    tidy = [(name, *row) for name, own in rows.items() for row in own]
    tiles = [(name, *row) for name, own in blocks.items() for row in own]
    with whole_file(path) as partial:
        pl.DataFrame(tidy, schema=SCHEMA, orient="row").write_parquet(partial, compression="zstd")
    with whole_file(heatmap_path) as partial:
        pl.DataFrame(tiles, schema=HEATMAP_SCHEMA, orient="row").write_parquet(partial, compression="zstd")


def weigh_checkpoint(
    model_folder: Path,
    deltas: Sequence[Path],
    settings: Mapping[str, Any],
    weights: Path,
    heatmaps: Path,
    state: Path | None = None,
) -> None:
    """Write the weight statistics and heat map of every matrix that the chain touched, against W_0.

    Args:
        model_folder: the unedited model.
        deltas: all increments up to the checkpoint.
        settings: `thresholds`, `quantiles`, `heatmap_blocks`.
        weights: written: the statistics.
        heatmaps: written: mean |ΔW| by block.
        state: what an adapter has learnt; None for an editor that changes weights.
    """
    files, identity = verified_manifest(model_folder)
    increments = read_chain(deltas, identity)
    names = sorted({name for one in increments for name in one.metadata["parameters"]})
    dtype = increments[-1].metadata["dtype"]
    base = {name: stored_tensor(model_folder, files, name).to(DTYPES[dtype]) for name in names}
    live = rebuild(base, increments)
    rows = {
        name: statistics(base[name], live[name], settings["thresholds"], settings["quantiles"])
        for name in names
        if base[name].ndim == 2
    }
    blocks = {name: heatmap(base[name], live[name], settings["heatmap_blocks"]) for name in rows}
    if not rows:
        unchanged = unchanged_rows(settings["thresholds"])
        rows = _adapter_rows(increments[-1], state, unchanged) if state else {"none": unchanged}
    write_weights(rows, blocks, weights, heatmaps)


def _adapter_rows(increment: Increment, state: Path, unchanged: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of an adapter: the size of its codebook, under the layer whose activations it replaces."""
    recipe = increment.metadata["editor"]
    (layer,) = edited_layers(recipe["method"], recipe["settings"])
    keys = len(read_tensors(state, "an editor's state")[0].get("keys", ()))
    return {f"layer {layer}": [*unchanged, ("codebook_keys", None, float(keys))]}
