"""What the deltas of a study take on disk, and what full checkpoints would, for page and terminal. Torch-free."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from collateral.io.units import checkpoints, size
from collateral.report.pages.tables import escape
from collateral.study.dtypes import WIDTH


def count_checkpoint_bytes(folder: Path, dtype: str) -> int | None:
    """Return what all parameters of a model take, as its files name them; None where no safetensors file can be read.

    Args:
        folder: of the model.
        dtype: that the study computes in.
    """
    elements = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as stream:
                tensors = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            elements += sum(
                math.prod(one["shape"]) for name, one in tensors.items() if name != "__metadata__"
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
            return None  # whether a model's files are whole is checked where they are used
    return elements * WIDTH[dtype] or None


def describe_disk(costs: pl.DataFrame, whole: Mapping[str, int]) -> list[str]:
    """Return one line a model: what its checkpoints take as deltas and states, and would take as whole models.

    Args:
        costs: the table; bytes are those of the files that lie there.
        whole: model → bytes of a full checkpoint, see `count_checkpoint_bytes`.
    """
    if costs.is_empty():
        return []
    kept = costs.filter(pl.col("bytes").is_not_null())
    found = kept.group_by("model", maintain_order=True).agg(pl.len().alias("count"), pl.col("bytes").sum())
    lines = []
    for model, count, taken in found.iter_rows():
        line = f"{model}: {checkpoints(count)} on disk: {size(taken)} as deltas and states"
        if model in whole:
            full = count * whole[model]
            line += f"; full checkpoints would be {size(full)}, {_times(full / taken)} as much"
        lines.append(f"{line}.")
    return lines


def render_disk(costs: pl.DataFrame, whole: Mapping[str, int]) -> str:
    """Return these lines as HTML; nothing where no update lies on the disk."""
    return "".join(f"<p>{escape(line)}</p>" for line in describe_disk(costs, whole))


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:,.0f} times"
