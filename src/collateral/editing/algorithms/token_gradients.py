"""The gradient of matrices token by token, and an update of them that a loss can be differentiated by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from collateral.deltas.update import Factors
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import ResumedRows, log_probabilities
from collateral.models.tokenization import Row


@dataclass(frozen=True)
class Gradient:
    """The gradient of one matrix, token by token: dL/dW = sum over tokens of d xᵀ (section 3.1).

    Attributes:
        x: inputs of the matrix.
        d: gradients of the loss by the matrix's outputs.
    """

    x: Float[Tensor, "tokens d_in"]
    d: Float[Tensor, "tokens d_out"]


def join_gradients(compute_gradients: Sequence[Mapping[str, Gradient]]) -> dict[str, Gradient]:
    """Return the gradients of a sum of losses, by matrix."""
    return {
        name: Gradient(
            torch.cat([g[name].x for g in compute_gradients]),
            torch.cat([g[name].d for g in compute_gradients]),
        )
        for name in compute_gradients[0]
    }


class Passage:
    """Prompts with answers, run once below the edited layers and, as often as wanted, from there on.

    Attributes:
        row: number of the row of each answer token, which is where log-probabilities are read.
    """

    def __init__(self, model: LanguageModel, rows: Sequence[Row], lowest: int):
        """Run the rows up to the layer below `lowest`, the lowest edited one."""
        texts = [row.ids[:-1] for row in rows]
        starts = [0] * len(rows)
        self._model = model
        self._resumed = ResumedRows(model, texts, starts, lowest - 1, lowest, {})
        places = [
            (i, row.prompt_length - 1 + j) for i, row in enumerate(rows) for j in range(len(row.target))
        ]
        self.row, self._column = torch.tensor(places, device=model.device).T
        self._token = torch.tensor([t for row in rows for t in row.target], device=model.device)

    def log_p(self) -> Float[Tensor, "reads vocabulary"]:
        """Return log p(next token) before every answer token."""
        final = self._resumed.final(self._resumed.hidden)
        return log_probabilities(self._model, final, self.row, self._column)

    def nll(self, log_p: Float[Tensor, "reads vocabulary"]) -> Float[Tensor, " rows"]:
        """Return each row's mean NLL over its answer's tokens, in nats."""
        each = -log_p.gather(1, self._token[:, None])[:, 0]
        count = torch.bincount(self.row)
        return torch.zeros(len(count), device=each.device).index_add(0, self.row, each) / count


Hook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]


@contextmanager
def _hooked(model: LanguageModel, hooks: Mapping[str, Hook]) -> Iterator[None]:
    handles = [
        model.module(name.removesuffix(".weight")).register_forward_hook(hook) for name, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.enable_grad()
def compute_gradients(
    model: LanguageModel, passage: Passage, names: Sequence[str], rows: int
) -> tuple[dict[str, Gradient], float]:
    """Return the gradient, by each matrix, of the NLL summed over a passage's first rows, and the mean NLL.

    One backward pass; a token whose gradient is zero, padding among them, is left out.
    """
    inputs: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}

    def shifted(name: str) -> Hook:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            inputs[name], shifts[name] = args[0].detach(), torch.zeros_like(output, requires_grad=True)
            return output + shifts[name]

        return hook

    with _hooked(model, {name: shifted(name) for name in names}):
        loss = passage.nll(passage.log_p())[:rows].sum()
        by_output = torch.autograd.grad(loss, [shifts[name] for name in names])
    found = {}
    for name, d in zip(names, by_output, strict=True):
        counts = (d != 0).any(dim=-1)
        found[name] = Gradient(inputs[name][counts].float(), d[counts].float())
    return found, float(loss.detach()) / rows


@contextmanager
def apply_updates(model: LanguageModel, updates: Mapping[str, Factors]) -> Iterator[None]:
    """Run as if the updates were in the weights, so that a loss can be differentiated by them."""

    def added(update: Factors) -> Hook:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            low = args[0].to(update.right.dtype) @ update.right
            moved: Tensor = output + (low @ update.left.T).to(output.dtype)
            return moved

        return hook

    with _hooked(model, {name: added(update) for name, update in updates.items()}):
        yield
