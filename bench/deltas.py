"""Measure delta files: what they take beside what they say, and how long a chain takes beside reading its bytes.

Every file is read back by its own writer and compared by hash; the bench stops where a chain does not give the live
weights.
"""

import logging
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from collateral.deltas.file_format import read_chain, read_outline, read_parts, write_increment
from collateral.deltas.increment import rebuild, tensor_sha256
from collateral.deltas.low_rank import Factors
from collateral.deltas.operations import OperationLog
from collateral.editing.regularizer import keep_masked
from collateral.editing.regularizers.rect import Rect
from collateral.io.versions import machine

ROUNDS = 7
STEPS = {
    (576, 1536): 20,
    (1600, 6400): 5,
}  # links of a chain on the embedded model's matrix, and on GPT-2 XL's
NAME = "model.layers.5.mlp.down_proj.weight"
SCALE = 0.02  # deviation of weights
Update = Factors | Tensor


@dataclass(frozen=True)
class Kind:
    """A kind of chain link, made of random numbers in the sizes of an editor's.

    Attributes:
        name: what it is like.
        updates: number of an operation, weights → their update.
        keep: percent of elements that masks leave; None: no masks.
        replaces: whether each update is the whole history, against W_0.
        operations: of a link.
    """

    name: str
    updates: Callable[[int, Tensor], Update]
    keep: float | None = None
    replaces: bool = False
    operations: int = 1


def low_rank(rank: int, dtype: torch.dtype = torch.float64) -> Callable[[int, Tensor], Factors]:
    """Return what makes an update of this rank, of a hundredth of the weights' norm."""

    def made(number: int, weights: Tensor) -> Factors:
        generator = torch.Generator().manual_seed(number)
        left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in weights.shape)
        scale = SCALE / 100 / math.sqrt(rank)
        return Factors((left * scale).to(dtype), right.to(dtype))

    return made


def masked(made: Callable[[int, Tensor], Factors], keep: float) -> Callable[[int, Tensor], Factors]:
    """Return the same with RECT's mask."""
    rect = Rect(keep)

    def thinned(number: int, weights: Tensor) -> Factors:
        update = made(number, weights)
        return update.masked(rect(weights, None, update.dense(), number))

    return thinned


def neurons(number: int, weights: Tensor) -> Factors:
    """Return the same shift of five columns, as KN's knowledge neurons get."""
    generator = torch.Generator().manual_seed(number)
    chosen = torch.zeros(weights.shape[1], 1)
    chosen[torch.randperm(len(chosen), generator=generator)[:5]] = 1.0
    return Factors(torch.randn(len(weights), 1, generator=generator) * SCALE, chosen)


def tuned(number: int, weights: Tensor) -> Tensor:
    """Return a full update, as Adam's steps make it."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(weights.shape, generator=generator) * SCALE / 100


def history(number: int, weights: Tensor) -> Tensor:
    """Return a full product against W_0, as D4S solves for it."""
    return low_rank(40)(number, weights).dense()


def thinly_tuned(number: int, weights: Tensor) -> Tensor:
    """Return a full update with RECT's mask of 40 %."""
    update = tuned(number, weights)
    return keep_masked(update, Rect(40.0)(weights, None, update, number))


LOW_RANK = (
    Kind("ROME", low_rank(1)),
    Kind("ROME, 5 edits a link", low_rank(1), operations=5),
    Kind("ROME + RECT 80 %", masked(low_rank(1), 80.0), 80.0),
    Kind("ROME + RECT 40 %", masked(low_rank(1), 40.0), 40.0),
    Kind("ROME + RECT 20 %, 5 edits a link", masked(low_rank(1), 20.0), 20.0, operations=5),
    Kind("MEMIT, 32 facts", low_rank(32)),
    Kind("MEMIT, 32 facts + RECT 40 %", masked(low_rank(32), 40.0), 40.0),
    Kind("MEND, 12 tokens", low_rank(12, torch.float32)),
    Kind("KN, 5 neurons", neurons),
)
OTHERS = (
    Kind("FT", tuned),
    Kind("FT + RECT 40 %", thinly_tuned),
    Kind("D4S", history, replaces=True),
)


def write_chain(
    folder: Path, base: Tensor, kind: Kind, steps: int, factored: bool
) -> tuple[list[Path], Tensor]:
    """Write a chain of links; return its files and the weights at its end."""
    paths, live = [], base
    for step in range(1, steps + 1):
        before, ledger = (base if kind.replaces else live), OperationLog(open_=factored)
        for operation in range(kind.operations):
            update = kind.updates(1000 * step + operation, live)
            ledger.add(NAME, update, live, transposed=False)
            start = base if kind.replaces else live
            whole = update.dense() if isinstance(update, Factors) else update
            live = (start.double() + whole.double()).to(base.dtype)
        about = {
            "base_sha256": "x",
            "mode": "replacing" if kind.replaces else "additive",
            "from_edits": 0 if kind.replaces else step - 1,
            "to_edits": step,
            "editor": {"method": kind.name},
        }
        paths.append(folder / f"edits-{step:04d}" / "delta.parquet")
        write_increment(paths[-1], {NAME: before}, {NAME: live}, about, ledger.operations)
    return paths, live


def rebuilt(base: Tensor, paths: Sequence[Path]) -> Tensor:
    """Return the weights at the end of a chain, as an evaluation job gets them."""
    return rebuild({NAME: base}, read_chain(paths, "x", outlines=True), parts=read_parts)[NAME]


def check(kind: Kind, base: Tensor, paths: Sequence[Path], live: Tensor) -> None:
    """Check a chain's end by hash.

    Raises:
        SystemExit: it is not the live weights.
    """
    if tensor_sha256(rebuilt(base, paths)) != tensor_sha256(live):
        sys.exit(f"{kind.name}: the rebuilt weights are not the live ones")


def weights_of(shape: tuple[int, int]) -> Tensor:
    """Return weights before the chain."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * SCALE


def in_factors(kind: Kind, shape: tuple[int, int], folder: Path) -> str:
    """Return one row: what a link takes as factors and as elements, beside the bytes of its factors and masks."""
    base = weights_of(shape)
    sizes = []
    for factored in (True, False):
        paths, live = write_chain(folder / str(factored), base, kind, 1, factored)
        check(kind, base, paths, live)
        sizes.append(paths[0].stat().st_size)
        if factored and read_outline(paths[0]).metadata["encoding"] != "factors":
            sys.exit(f"{kind.name}: elements were chosen")
    first = kind.updates(1000, base)
    assert isinstance(first, Factors)
    least: float = kind.operations * (first.left.nbytes + first.right.nbytes)
    if kind.keep is not None:
        share = kind.keep / 100
        entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
        least += kind.operations * entropy * base.numel() / 8
    ratios = f"{sizes[0] / least:.2f}", f"{sizes[1] / sizes[0]:.1f}"
    cells = (kind.name, _shape(shape), _bytes(sizes[0]), ratios[0], _bytes(sizes[1]), ratios[1])
    return f"| {' | '.join(cells)} |"


def in_elements(kind: Kind, shape: tuple[int, int], folder: Path) -> str:
    """Return one row: what a link takes as elements, and the same columns with pyarrow's own choices."""
    base = weights_of(shape)
    paths, live = write_chain(folder / "own", base, kind, 1, factored=True)
    check(kind, base, paths, live)
    if read_outline(paths[0]).metadata["encoding"] != "elements":
        sys.exit(f"{kind.name}: factors were chosen")
    plain, table = folder / "plain.parquet", pq.read_table(paths[0], partitioning=None)
    pq.write_table(table, plain)
    own, default = paths[0].stat().st_size, plain.stat().st_size
    if not pq.read_table(plain, partitioning=None).equals(table):
        sys.exit(f"{kind.name}: the plain table is another one")
    each = own / table.num_rows
    cells = (kind.name, _shape(shape), _bytes(own), f"{each:.2f}", _bytes(default), f"{default / own:.2f}")
    return f"| {' | '.join(cells)} |"


def speed(kind: Kind, shape: tuple[int, int], folder: Path, factored: bool) -> str:
    """Return one row: a chain rebuilt with every check, in turns with reading its bytes and nothing else."""
    base = weights_of(shape)
    paths, live = write_chain(folder, base, kind, STEPS[shape], factored)
    check(kind, base, paths, live)

    def read() -> None:
        for path in paths:
            pq.read_table(path, partitioning=None)

    ratios, seconds = [], []
    for _ in range(ROUNDS):
        plain, own = _seconds(read), _seconds(lambda: rebuilt(base, paths))
        ratios.append(own / plain)
        seconds.append(own)
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    size = sum(path.stat().st_size for path in paths)
    encoding = read_outline(paths[-1]).metadata["encoding"]
    time_taken = f"{1000 * statistics.median(seconds):.0f} ms"
    cells = (
        str(len(paths)),
        kind.name,
        encoding,
        _shape(shape),
        _bytes(size),
        time_taken,
        f"{statistics.median(ratios):.2f} ({span})",
    )
    return f"| {' | '.join(cells)} |"


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.process_time()  # of this process: what others do beside it counts less
    call()
    return time.process_time() - begun


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} × {shape[1]}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size > 1e6 else f"{size / 1e3:.1f} kB"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    load = f"{os.getloadavg()[0]:.1f}"
    _say(f"{machine()['processor']}, 1 thread, float32 weights; load of the machine at the start {load}\n")
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        _say(
            "| link | matrix | as factors | / (factors + entropy of masks) | as elements | elements / factors |"
        )
        _say("|---|---|---|---|---|---|")
        for shape in STEPS:
            for number, kind in enumerate(LOW_RANK):
                _say(in_factors(kind, shape, folder / f"{shape[0]}-{number}"))
        _say(
            "\n| link | matrix | as elements | bytes an element | pyarrow's default encodings | default / ours |"
        )
        _say("|---|---|---|---|---|---|")
        for shape in STEPS:
            for number, kind in enumerate(OTHERS):
                _say(in_elements(kind, shape, folder / f"{shape[0]}-other-{number}"))
        _say(
            "\n| links | of | encoding | matrix | bytes | rebuilt and checked | / reading the bytes (range) |"
        )
        _say("|---|---|---|---|---|---|---|")
        for shape in STEPS:
            for kind in (LOW_RANK[0], LOW_RANK[3]):
                for factored in (False, True):
                    place = folder / f"{shape[0]}-{LOW_RANK.index(kind)}-{factored}"
                    _say(speed(kind, shape, place, factored))


if __name__ == "__main__":
    main()
