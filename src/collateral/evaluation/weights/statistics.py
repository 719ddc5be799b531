"""Weight statistics of the papers: an edited matrix compared with the unedited one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from collateral.deltas.file_format import read_chain
from collateral.deltas.increment import Increment
from collateral.deltas.replay import replay
from collateral.deltas.update import Factors, norm
from collateral.editing.registry import edited_layers
from collateral.evaluation.weights.one_pass import Sweep, sweep
from collateral.evaluation.weights.spectra import (
    Matrix,
    condition_number,
    cosine,
    frobenius,
    singular_range,
    spectral_norm,
    stable_rank,
)
from collateral.io.parquet import write_table
from collateral.models.manifest import DTYPES, stored_tensor, verified_manifest
from collateral.models.tensor_file import read_tensors

SCHEMA = {"parameter": pl.String, "statistic": pl.String, "threshold": pl.Float64, "value": pl.Float64}
HEATMAP_SCHEMA = {
    "parameter": pl.String,
    "block_row": pl.Int32,
    "block_col": pl.Int32,
    "value": pl.Float64,
}
Row = tuple[str, float | None, float]


def compute_statistics(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    thresholds: Sequence[float],
    quantiles: Sequence[float],
) -> list[Row]:
    """Return (statistic, threshold, value) rows for one matrix, with ΔW = after - before.

    Those of `compute_change_statistics` and `compute_update_statistics`; of W_0 (before), W (after) and ΔW (delta)

    mean_abs_*           mean |W|: what the D4S paper calls the L1 norm
    l1_*, fro_*, spectral_*   entrywise 1-norm, Frobenius norm, largest singular value

    and of W_0 and W

    condition_*          σ_max / σ_min, infinite for a singular matrix         (PRUNE, arXiv 2405.16821)
    stable_rank_after    ‖W‖_F² / ‖W‖₂²

    Args:
        before: W_0.
        after: W.
        thresholds: of delta_share.
        quantiles: of delta_quantile, in [0, 1].
    """
    return _list_rows(sweep(before, after, thresholds, quantiles), before, after, thresholds, quantiles)


def _list_rows(
    swept: Sweep, before: Tensor, after: Tensor, thresholds: Sequence[float], quantiles: Sequence[float]
) -> list[Row]:
    rows = _list_change_rows(swept, thresholds, quantiles)
    for place, (name, matrix) in enumerate((("before", before), ("after", after))):
        fro = math.sqrt(swept.squares[place])
        largest, smallest = singular_range(_copy_array(matrix))
        rows += [
            *_list_sum_rows(name, swept, place),
            (f"fro_{name}", None, fro),
            (f"spectral_{name}", None, largest),
        ]
        rows.append((f"condition_{name}", None, condition_number(largest, smallest, tuple(matrix.shape))))
    rows += [("stable_rank_after", None, stable_rank(fro, largest)), *_list_sum_rows("delta", swept, 2)]
    return rows + _list_update_rows(math.sqrt(swept.squares[0]), subtract(before, after))


def compute_change_statistics(
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

    RECT section 4.4 says of 100 single edits that 20 % of the elements have a delta above 0.077 and 10 % above 0.171,
    on average over the edits. Of single edits of one matrix, the mean of delta_share over the edits is that average,
    and is also the share among the elements of all edits together, as each has the same elements with W_0 != 0. The
    mean of delta_quantile 0.8 and 0.9 is the other reading: the average edit's 80th and 90th percentile.

    Args:
        before: W_0.
        after: W.
        thresholds: of delta_share.
        quantiles: of delta_quantile, in [0, 1].
    """
    return _list_change_rows(sweep(before, after, thresholds, quantiles), thresholds, quantiles)


def compute_single_statistics(
    before: Float[Tensor, "d_out d_in"],
    after: Float[Tensor, "d_out d_in"],
    update: Factors | None,
    thresholds: Sequence[float],
    quantiles: Sequence[float],
) -> list[Row]:
    """Return the change and update statistics of one edit, from one pass over W_0 and W.

    Args:
        before: W_0.
        after: W.
        update: ΔW as factors, where it is they that were added; None where the difference is to be taken.
        thresholds: of delta_share.
        quantiles: of delta_quantile, in [0, 1].
    """
    swept = sweep(before, after, thresholds, quantiles)
    change = subtract(before, after) if update is None else update
    return [
        *_list_change_rows(swept, thresholds, quantiles),
        *_list_update_rows(math.sqrt(swept.squares[0]), change),
    ]


def compute_update_statistics(before: Float[Tensor, "d_out d_in"], update: Matrix | Factors) -> list[Row]:
    """Return the rows of the size and shape of ΔW; of a factored one in closed form, without its product.

    fro_delta, spectral_delta    Frobenius norm and largest singular value of ΔW
    stable_rank_delta            ‖ΔW‖_F² / ‖ΔW‖₂²: 1 for a single rank-one edit; 0 where nothing changed
    relative_fro                 ‖ΔW‖_F / ‖W_0‖_F; no row where W_0 = 0
    """
    return _list_update_rows(norm(before), update)


def _list_update_rows(whole: float, update: Matrix | Factors) -> list[Row]:
    """Return the rows of `compute_update_statistics`, given ‖W_0‖_F."""
    fro, spectral = frobenius(update), spectral_norm(update)
    rows: list[Row] = [
        ("fro_delta", None, fro),
        ("spectral_delta", None, spectral),
        ("stable_rank_delta", None, stable_rank(fro, spectral)),
    ]
    return [*rows, ("relative_fro", None, fro / whole)] if whole else rows


def compute_successive_cosine(states: Sequence[Float[Tensor, "d_out d_in"]]) -> list[Row]:
    """Return the row of the cosine between a checkpoint's increment and the one before.

    cosine_previous      <ΔW_n, ΔW_{n-1}> / (‖ΔW_n‖_F ‖ΔW_{n-1}‖_F), ΔW_n = W_n - W_{n-1}; no row where one is zero

    Args:
        states: the matrix at the last checkpoints, W_0 before the first; below three there is no row.
    """
    if len(states) < 3:
        return []
    earlier, previous, last = states[-3:]
    angle = cosine(subtract(previous, last), subtract(earlier, previous))
    return [] if angle is None else [("cosine_previous", None, angle)]


def _copy_array(matrix: Float[Tensor, "d_out d_in"]) -> Matrix:
    """Return a copy in float64 that may be overwritten."""
    values: Matrix = matrix.detach().to("cpu", torch.float64, copy=True).numpy()
    return values


def subtract(before: Tensor, after: Tensor) -> Matrix:
    """Return ΔW = after - before in float64."""
    change = _copy_array(after)
    change -= _copy_array(before)
    return change


def _list_sum_rows(name: str, swept: Sweep, place: int) -> list[Row]:
    total = swept.absolute[place]
    return [(f"mean_abs_{name}", None, total / swept.size), (f"l1_{name}", None, total)]


def _list_change_rows(swept: Sweep, thresholds: Sequence[float], quantiles: Sequence[float]) -> list[Row]:
    """Return the rows of `compute_change_statistics`."""
    usable = swept.size - swept.zeros
    rows: list[Row] = [("manhattan", None, swept.absolute[2])]
    for threshold, above in zip(thresholds, swept.above, strict=True):
        rows.append(("delta_share", threshold, above / usable if usable else 0.0))
    if usable:
        rows += [("delta_quantile", q, level) for q, level in zip(quantiles, swept.levels, strict=True)]
    rows.append(("nonzero_share", None, swept.nonzero / swept.size))
    rows.append(("zero_weights", None, float(swept.zeros)))
    return rows


def compute_heatmap(
    before: Float[Tensor, "d_out d_in"], after: Float[Tensor, "d_out d_in"], blocks: int
) -> list[tuple[int, int, float]]:
    """Return (block_row, block_col, mean |ΔW|) over a grid of at most `blocks x blocks` blocks (RECT Figure 5)."""
    return _list_tiles(sweep(before, after, blocks=blocks))


def _list_tiles(swept: Sweep) -> list[tuple[int, int, float]]:
    height, width = swept.tiles.shape
    return [(i, j, float(swept.tiles[i, j])) for i in range(height) for j in range(width)]


def list_unchanged_rows(thresholds: Sequence[float]) -> list[Row]:
    """Return the rows of an editor that touches no matrix: the distances are zero by definition."""
    names = ("manhattan", "nonzero_share", "fro_delta", "spectral_delta", "relative_fro")
    rows: list[Row] = [(name, None, 0.0) for name in names]
    return rows + [("delta_share", threshold, 0.0) for threshold in thresholds]


def write_weights(
    rows: Mapping[str, Sequence[Row]],
    blocks: Mapping[str, Sequence[tuple[int, int, float]]],
    path: Path,
    heatmap_path: Path,
) -> None:
    """Write the statistics and the heat map of all edited matrices, one tidy row a number."""
    tidy = [(name, *row) for name, statistics in rows.items() for row in statistics]
    tiles = [(name, *tile) for name, heatmap in blocks.items() for tile in heatmap]
    write_table(pl.DataFrame(tidy, schema=SCHEMA, orient="row"), path)
    write_table(pl.DataFrame(tiles, schema=HEATMAP_SCHEMA, orient="row"), heatmap_path)


def weigh_checkpoint(
    model_folder: Path,
    deltas: Sequence[Path],
    settings: Mapping[str, Any],
    weights: Path,
    heatmaps: Path,
    state: Path | None = None,
) -> None:
    """Write the weight statistics and heat map of every matrix that the chain touched, against W_0.

    One parameter after another, so that memory is bounded by the largest matrix and not by their number.

    Args:
        model_folder: the unedited model.
        deltas: all increments up to the checkpoint; where each is against W_0, the last three suffice.
        settings: `thresholds`, `quantiles`, `heatmap_blocks`.
        weights: written: the statistics.
        heatmaps: written: mean |ΔW| by block.
        state: an adapter's; None for an editor that changes weights.
    """
    files, identity = verified_manifest(model_folder)
    outlines = read_chain(deltas, identity, outlines=True)
    dtype = DTYPES[outlines[-1].metadata["dtype"]]
    rows: dict[str, list[Row]] = {}
    blocks: dict[str, list[tuple[int, int, float]]] = {}
    for name in sorted({name for outline in outlines for name in outline.metadata["parameters"]}):
        measured = _weigh_matrix(stored_tensor(model_folder, files, name).to(dtype), name, outlines, settings)
        if measured is not None:
            rows[name], blocks[name] = measured
    if not rows:
        unchanged = list_unchanged_rows(settings["thresholds"])
        rows = _adapter_rows(outlines[-1], state, unchanged) if state else {"none": unchanged}
    write_weights(rows, blocks, weights, heatmaps)


def _weigh_matrix(
    base: Tensor, name: str, outlines: Sequence[Increment], settings: Mapping[str, Any]
) -> tuple[list[Row], list[tuple[int, int, float]]] | None:
    """Return the statistics and the heat map of one matrix; a bias is rebuilt and verified, and is no matrix."""
    states = _take_last(replay(base, name, outlines), base)
    if base.ndim != 2:
        return None
    thresholds, quantiles = settings["thresholds"], settings["quantiles"]
    swept = sweep(base, states[-1], thresholds, quantiles, settings["heatmap_blocks"])
    rows = _list_rows(swept, base, states[-1], thresholds, quantiles)
    return rows + compute_successive_cosine(states), _list_tiles(swept)


def _take_last(states: Iterable[Tensor], base: Tensor) -> list[Tensor]:
    """Return the last three states of a parameter, W_0 before the first; no more are held at once."""
    last = [base]
    for matrix in states:
        last = [*last[-2:], matrix]
    return last


def _adapter_rows(increment: Increment, state: Path, unchanged: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of an adapter: the size of its codebook, under the layer whose activations it replaces."""
    recipe = increment.metadata["editor"]
    (layer,) = edited_layers(recipe["method"], recipe["settings"])
    keys = len(read_tensors(state, "an editor's state")[0].get("keys", ()))
    return {f"layer {layer}": [*unchanged, ("codebook_keys", None, float(keys))]}
