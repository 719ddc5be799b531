"""MEND's hypernetwork: gradients of some matrices in, low-rank updates of them out (arXiv 2110.11309, section 3)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from collateral.data.facts import Fact
from collateral.deltas.update import Factors
from collateral.editing.algorithms.token_gradients import Gradient
from collateral.errors import CollateralError
from collateral.models.language_model import LanguageModel
from collateral.models.tensor_file import read_tensors, write_tensors

FORMAT = "collateral-hypernetwork/1"


class _Network(nn.Module):
    """g for all matrices of one shape: two residual low-rank layers, the identity at the start (equation 3).

    h    = z + σ(s¹ ∘ (U₁ V₁ z + b) + o¹)        z: x and d side by side, standardised
    g(z) = h + σ(s² ∘ U₂ V₂ h + o²)              s, o: of each matrix; σ: ReLU
    """

    def __init__(self, size: int, matrices: int, rank: int, last_relu: bool, generator: torch.Generator):
        super().__init__()
        self.last_relu = last_relu
        bound = (6 / (size + rank)) ** 0.5  # Xavier's, for V; U starts at zero

        def uniform() -> nn.Parameter:
            return nn.Parameter((torch.rand(rank, size, generator=generator) * 2 - 1) * bound)

        self.v1, self.u1 = uniform(), nn.Parameter(torch.zeros(size, rank))
        self.v2, self.u2 = uniform(), nn.Parameter(torch.zeros(size, rank))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale1, self.offset1 = nn.Parameter(torch.ones(matrices, size)), _zeros(matrices, size)
        self.scale2, self.offset2 = nn.Parameter(torch.ones(matrices, size)), _zeros(matrices, size)
        self.mean = nn.Buffer(torch.zeros(size))
        self.deviation = nn.Buffer(torch.ones(size))

    def forward(self, matrix: int, z: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens size"]:
        """Return g(z) for one matrix."""
        z = (z - self.mean) / self.deviation
        first = self.scale1[matrix] * (z @ self.v1.T @ self.u1.T + self.bias) + self.offset1[matrix]
        # clamp, not relu: relu's gradient at 0 is 0, and nothing would ever leave the start
        h: Tensor = z + first.clamp(min=0)
        second: Tensor = self.scale2[matrix] * (h @ self.v2.T @ self.u2.T) + self.offset2[matrix]
        moved: Tensor = h + (second.clamp(min=0) if self.last_relu else second)
        return moved


def _zeros(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*size))


class Hypernetwork(nn.Module):
    """ΔW = -α Σ d̃ x̃ᵀ with (x̃, d̃) = g(x, d), one g for each distinct shape and one α for each matrix."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, edit_lr: float, variant: str, seed: int
    ):
        """Start as the identity: ΔW is -edit_lr times the gradient of standardised factors.

        Args:
            shapes: (d_out, d_in) of each matrix.
            rank: of U V.
            edit_lr: start of each α.
            variant: `paper`, or `released`: no σ in the second layer, and the update is added.
            seed: of V.
        """
        super().__init__()
        # DIFFERS: the released code has no ReLU after the second layer and adds the update, leaving the sign to be
        # learnt; the paper's equation 3 has one, and its update is W - α ∇̃W.
        generator = torch.Generator().manual_seed(seed)
        self.sign = 1.0 if variant == "released" else -1.0
        self.shapes = dict(shapes)
        self.edit_lr = nn.Parameter(torch.full((len(shapes),), edit_lr))
        self.networks = nn.ModuleDict()
        for shape in sorted(set(shapes.values())):
            alike = len(self._alike(shape))
            self.networks[_key(shape)] = _Network(sum(shape), alike, rank, variant == "paper", generator)

    def _alike(self, shape: tuple[int, int]) -> list[str]:
        return [name for name, own in self.shapes.items() if own == shape]

    def forward(self, found: Mapping[str, Gradient]) -> dict[str, Factors]:
        """Return the update of each matrix, of one rank a token, where its gradient lies."""
        updates = {}
        for name, rate in zip(self.shapes, self.edit_lr, strict=True):
            shape = self.shapes[name]
            z = torch.cat([found[name].x, found[name].d], dim=1).to(self.edit_lr.device)
            x, d = self.networks[_key(shape)](self._alike(shape).index(name), z).split(shape[::-1], dim=1)
            place = found[name].x.device
            updates[name] = Factors((self.sign * rate * d.T).to(place), x.T.to(place))
        return updates

    @torch.no_grad()
    def standardize(self, batches: Iterator[Mapping[str, Gradient]]) -> None:
        """Set mean and deviation of z, over all tokens and all matrices of a shape."""
        sums: dict[str, Tensor] = {}
        for found in batches:
            for name, shape in self.shapes.items():
                z = torch.cat([found[name].x, found[name].d], dim=1).to(self.edit_lr.device).double()
                moments = torch.stack([torch.ones_like(z[0]) * len(z), z.sum(dim=0), (z**2).sum(dim=0)])
                sums[_key(shape)] = sums.get(_key(shape), 0) + moments
        for key, (count, total, squares) in sums.items():
            mean = total / count
            variance = (squares - count * mean**2).clamp_min(0) / (count - 1).clamp_min(1)
            own = self.networks[key]
            own.get_buffer("mean").copy_(mean)
            own.get_buffer("deviation").copy_(variance.sqrt() + 1e-7)  # a constant input becomes 0


def _key(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def write_hypernetwork(
    network: Hypernetwork, path: Path, base_sha256: str, facts: Sequence[Fact], about: Mapping[str, Any]
) -> None:
    """Write a trained network with the model, the settings and the facts that it was trained on."""
    trained_on = [[fact.fact_id, *_asked(fact)] for fact in facts]
    record = {**about, "format": FORMAT, "base_sha256": base_sha256, "trained_on": trained_on}
    write_tensors(network.state_dict(), path, record)


def _asked(fact: Fact) -> tuple[str, str]:
    """Return what makes two facts the same question, as in a sequence's conflicts."""
    return fact.subject.casefold(), fact.relation


@dataclass(frozen=True)
class Trained:
    """A hypernetwork's file in memory.

    Attributes:
        network: with its trained weights, on the model's device.
        about: what the file says about itself.
    """

    network: Hypernetwork
    about: Mapping[str, Any]

    def check_new(self, facts: Sequence[Fact]) -> None:
        """Check that no fact was trained on.

        Raises:
            CollateralError: one was, by its id or by its subject and relation.
        """
        ids = {entry[0] for entry in self.about["trained_on"]}
        asked = {(entry[1], entry[2]) for entry in self.about["trained_on"]}
        for fact in facts:
            if fact.fact_id in ids or _asked(fact) in asked:
                raise CollateralError(
                    f"fact '{fact.fact_id}' ('{fact.subject}', '{fact.relation}') is among the {len(ids)} that the "
                    "hypernetwork was trained on, so that its edit would measure nothing; lower training_facts "
                    "or the last checkpoint, or take a larger data set"
                )


def read_hypernetwork(
    path: Path, model: LanguageModel, shapes: Mapping[str, tuple[int, int]], rank: int, variant: str
) -> Trained:
    """Return the trained network of a file.

    Raises:
        CollateralError: damaged, or trained for another model, other layers, rank or variant.
    """
    tensors, about = read_tensors(path, "a hypernetwork")
    if about.get("format") != FORMAT:
        raise CollateralError(f"{path}: not a hypernetwork; delete it and run the workflow again")
    wanted = {"base_sha256": model.base_sha256, "matrices": list(shapes), "rank": rank, "variant": variant}
    for name, value in wanted.items():
        if about[name] != value:
            raise CollateralError(
                f"{path}: trained with {name} {about[name]}, but the editor has {value}; delete it and run the "
                "workflow again"
            )
    network = Hypernetwork(shapes, rank, 0.0, variant, 0)
    network.load_state_dict(tensors)
    return Trained(network.to(model.device).requires_grad_(False), about)
