"""Time the solves of MEMIT's kin, an edit and layer at a time, against `torch.linalg.solve` of the whole system.

Both take up the same keys and residuals, in turns; their updates must agree. The baseline is given what it can keep:
λ C is multiplied once, its sums grow in place, and AlphaEdit's projection is there; each solve is of the full matrix,
as in the released codes. Ours are the functions that the editors call.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from collateral.editing.algorithms.recursive_least_squares import compute_gain, refit
from collateral.editing.prepare.second_moments import Moment
from collateral.io.versions import machine

CONDITION = 1e6  # of C
WEIGHT, L2, NULL = 5000.0, 20.0, 0.7  # as on the embedded model; share of C's eigenvectors that count as null
TOLERANCE = (
    1e-7  # of an update, relative; `torch.linalg.solve` is off by about 1e-16 times the system's condition
)
BATCHES = (1, 32)
MILESTONES = (1, 10, 100, 1000)
TURNS = 31


@dataclass(frozen=True)
class Shape:
    """An edited matrix.

    Attributes:
        name: of the model that has it.
        d_in: length of a key.
        d_out: length of a value.
        rounds: operations that are timed after the first.
        methods: whose solves.
    """

    name: str
    d_in: int
    d_out: int
    rounds: int
    methods: tuple[str, ...]


SHAPES = (
    Shape("SmolLM2-135M", 1536, 576, 7, ("MEMIT", "MEMIT-seq", "D4S", "AlphaEdit")),
    Shape("GPT-2 XL", 6400, 1600, 1, ("MEMIT-seq", "D4S")),
)


@dataclass(frozen=True)
class Given:
    """A layer's second moment, whose eigenvectors are a reflection, so that large ones are made at once."""

    shape: Shape
    moment: Moment
    basis: Tensor
    half: Tensor
    draw: torch.Generator

    def keys(self, batch: int) -> Tensor:
        """Return keys of the distribution whose second moment is C."""
        return self.half @ self.normal(self.shape.d_in, batch)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.draw, dtype=torch.float64)


def given_for(shape: Shape) -> Given:
    """Return a second moment with eigenvalues from 1 to 1/CONDITION, evenly by order of magnitude."""
    draw = torch.Generator().manual_seed(0)
    values = torch.logspace(0, -torch.log10(torch.tensor(CONDITION)).item(), shape.d_in, dtype=torch.float64)
    normal = torch.randn(shape.d_in, 1, generator=draw, dtype=torch.float64)
    vectors = torch.eye(shape.d_in, dtype=torch.float64) - 2 * normal @ normal.T / float(normal.T @ normal)
    half = vectors * values.sqrt()
    basis = vectors[:, int((1 - NULL) * shape.d_in) :].contiguous()
    return Given(shape, Moment(half @ half.T, 10 * shape.d_in), basis, half, draw)


@dataclass
class Plain:
    """The solves as they are written in the papers."""

    given: Given
    method: str
    scaled: Tensor = field(init=False)
    b: Tensor = field(init=False)
    a: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Make what is made once."""
        size = self.given.shape.d_in
        self.scaled = WEIGHT * self.given.moment.matrix
        if self.method == "AlphaEdit":
            self.scaled = self.given.basis @ self.given.basis.T
        self.b = torch.zeros(size, size, dtype=torch.float64)
        self.a = torch.zeros(self.given.shape.d_out, size, dtype=torch.float64)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Add pairs to the sums."""
        self.b.addmm_(keys, keys.T)
        if self.method == "D4S":
            self.a.addmm_(values, keys.T)

    def solved(self, keys: Tensor) -> Tensor:
        """Return the update, or its right factor."""
        if self.method == "MEMIT":
            return torch.linalg.solve(self.scaled + keys @ keys.T, keys)
        if self.method == "AlphaEdit":
            system = self.scaled @ self.b
            system.diagonal().add_(L2)
            return torch.linalg.solve(system, self.scaled @ keys)
        if self.method == "D4S":
            return torch.linalg.solve(self.scaled + self.b, self.a.T).T
        return torch.linalg.solve(self.scaled + self.b, keys)

    def __call__(self, keys: Tensor, values: Tensor) -> Tensor:
        """Return the update, or its right factor, after the sums have grown."""
        if self.method != "MEMIT":
            self.add(keys, values)
        return self.solved(keys)


@dataclass
class Ours:
    """What the editors call."""

    given: Given
    method: str
    state: dict[str, Tensor] = field(default_factory=dict)

    def begin(self) -> Tensor:
        """Return the root of a chain's first operation."""
        if self.method == "AlphaEdit":
            return self.given.basis / L2**0.5
        return self.given.moment.inverse_root(WEIGHT, 0.0, "cpu")

    def __call__(self, keys: Tensor, values: Tensor) -> Tensor:
        """Return the update, or its right factor."""
        if self.method == "MEMIT":
            return self.given.moment.damped_inverse(keys, WEIGHT)
        gain = compute_gain(self.state, 0, keys, self.begin)
        return refit(self.state, 0, keys, values, gain) if self.method == "D4S" else gain


def timed(call: Callable[[Tensor, Tensor], Tensor], keys: Tensor, values: Tensor) -> tuple[float, Tensor]:
    """Return milliseconds and the result."""
    begun = time.perf_counter()
    found = call(keys, values)
    return 1000 * (time.perf_counter() - begun), found


def apart(method: str, ours: Tensor, plain: Tensor) -> float:
    """Return the relative difference of two updates, which must be small.

    Raises:
        SystemExit: they differ.
    """
    far = float((ours - plain).norm() / plain.norm())
    if not far <= TOLERANCE:
        sys.exit(f"{method}: the updates differ by {far:.1e}, more than {TOLERANCE:g}")
    return far


def compared(given: Given, method: str, batch: int) -> str:
    """Return one row: the first operation apart, which begins the root, then both in turns."""
    plain, ours = Plain(given, method), Ours(given, method)
    before, after, far = [], [], []
    for _ in range(1 + given.shape.rounds):
        keys, values = given.keys(batch), given.normal(given.shape.d_out, batch)
        one, theirs = timed(plain, keys, values)
        two, mine = timed(ours, keys, values)
        before.append(one)
        after.append(two)
        far.append(apart(method, mine, theirs))
    ratios = [one / two for one, two in zip(before[1:], after[1:], strict=True)]
    return (
        f"| {method} | {given.shape.d_in} | {batch} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to "
        f"{max(ratios):.1f}) | {statistics.median(before[1:]):.0f} ms | {statistics.median(after[1:]):.1f} ms | "
        f"{after[0]:.0f} ms | {max(far):.0e} |"
    )


def growth(given: Given) -> str:
    """Return the table of D4S's time an edit as edits add up: the same pairs on the states of then, in turns."""
    plain, ours = Plain(given, "D4S"), Ours(given, "D4S")
    states, seconds, far = {}, {}, {}
    for i in range(1, MILESTONES[-1] + 1):
        keys, values = given.keys(1), given.normal(given.shape.d_out, 1)
        plain.add(keys, values)
        taken, mine = timed(ours, keys, values)
        if i in MILESTONES:
            states[i], seconds[i] = dict(ours.state), [taken]
            far[i] = apart("D4S", mine, plain.solved(keys))
    for _ in range(TURNS):
        keys, values = given.keys(1), given.normal(given.shape.d_out, 1)
        for i in MILESTONES[1:]:  # the first edit begins the root, once a chain
            seconds[i].append(timed(Ours(given, "D4S", dict(states[i])), keys, values)[0])
    lines = ["| edit | ours | update differs by |", "|---|---|---|"]
    medians = {i: statistics.median(seconds[i]) for i in MILESTONES}
    lines += [f"| {i} | {medians[i]:.1f} ms | {far[i]:.0e} |" for i in MILESTONES]
    first, last = MILESTONES[1], MILESTONES[-1]
    return "\n".join(lines) + f"\n\nedit {last} / edit {first}: {medians[last] / medians[first]:.2f}\n"


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    sys.stdout.write(
        f"{machine()['processor']}, 1 thread, float64, C of condition {CONDITION:g}; medians, an edit and layer\n\n"
        "| solve of | d_in | facts | solve / ours (range) | solve | ours | ours, first of a chain | differs by |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for shape in SHAPES:
        given = given_for(shape)
        for method in shape.methods:
            for batch in BATCHES:
                given.moment.made.clear()  # what a chain's first operation makes is timed for each
                sys.stdout.write(f"{compared(given, method, batch)}\n")
                sys.stdout.flush()
    sys.stdout.write(
        f"\nD4S, {SHAPES[0].d_in} dimensions, one fact an edit:\n\n{growth(given_for(SHAPES[0]))}"
    )


if __name__ == "__main__":
    main()
