"""Integrated gradients of a next-token probability with respect to MLP neurons, at the last token of a text.

What a layer's neurons are scaled to at the last token changes nothing before that token, and nothing below the
layer. So the text is run once, its keys and values are kept, and every scaled activation is one row of one token
that starts at its own layer: rows of neighbouring layers and all scales run side by side.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from collateral.models.hooks import capture
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import log_probabilities, run_part
from collateral.models.tokenization import Batch


class LastToken:
    """A text's last token, whose pass through the model was run once and can be resumed at any layer.

    Attributes:
        neurons: activations of each layer's neurons at that token, `layers x d_in`.
    """

    neurons: Float[Tensor, "layers d_in"]

    def __init__(self, model: LanguageModel, ids: Sequence[int], before_activation: bool = False):
        """Run the text once.

        Args:
            model: the model; its weights must stay as they are while this object is used.
            ids: the text's tokens.
            before_activation: a neuron is the output of the MLP's (gate's) input projection, instead of the input
                of its down projection.
        """
        self._model = model
        self._ids = torch.tensor([ids], device=model.device)
        self._before = before_activation
        cache = DynamicCache()
        with ExitStack() as hooks, torch.no_grad():
            blocks = [hooks.enter_context(capture(model.block(i))) for i in range(model.layers)]
            held = [hooks.enter_context(capture(self._module(i))) for i in range(model.layers)]
            run_part(model, self._batch(self._ids, 0), cache=cache)
        side = "output" if before_activation else "input"
        self.neurons = torch.stack([seen[side][0, -1].to(model.device) for seen in held]).float()
        self._entering = [seen["input"][:, -1:] for seen in blocks]
        layers: list[Any] = cache.layers if len(ids) > 1 else []
        self._prefix = [(entry.keys[..., :-1, :], entry.values[..., :-1, :]) for entry in layers]

    def _module(self, layer: int) -> nn.Module:
        model = self._model
        return model.module(model.architecture.inputs[0].format(layer)) if self._before else model.down(layer)

    def _batch(self, ids: Tensor, done: int) -> Batch:
        """Return unpadded tokens that stand after `done` cached ones."""
        rows, width = ids.shape
        positions = torch.arange(done, done + width, device=ids.device).expand(rows, width)
        return Batch(ids, torch.ones(rows, done + width, dtype=torch.long, device=ids.device), positions)

    def probabilities(
        self, layers: Sequence[int], neurons: Float[Tensor, "rows d_in"], token: int
    ) -> Float[Tensor, " rows"]:
        """Return p(token) where, in row i, the neurons of layer `layers[i]` are set to `neurons[i]`.

        Args:
            layers: in increasing order.
            neurons: one row each.
            token: the next token.
        """
        rows, lowest = len(layers), layers[0]
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._prefix):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
        entering = self._entering[lowest].expand(rows, -1, -1)
        numbers = torch.tensor(layers, device=neurons.device)
        ids = self._ids[:, -1:].expand(rows, 1)
        every = torch.arange(rows, device=neurons.device)
        with ExitStack() as hooks:
            for layer in sorted(set(layers)):
                own = (numbers == layer)[:, None, None]
                hooks.enter_context(self._set(layer, own, neurons[:, None]))
            batch = self._batch(ids, self._ids.shape[1] - 1)
            final = run_part(self._model, batch, after=lowest - 1, hidden=entering, cache=cache)
        return log_probabilities(self._model, final, every, every * 0)[:, token].exp()

    @contextmanager
    def _set(self, layer: int, own: Tensor, neurons: Tensor) -> Iterator[None]:
        """Set a layer's neurons in its own rows, and in no other."""

        def replaced(held: Tensor) -> Tensor:
            return torch.where(own.to(held.device), neurons.to(held), held)

        module = self._module(layer)
        if self._before:
            handle = module.register_forward_hook(lambda _, __, output: replaced(output))
        else:
            handle = module.register_forward_pre_hook(lambda _, args: (replaced(args[0]),))
        try:
            yield
        finally:
            handle.remove()


def integrated_gradients(
    last: LastToken, token: int, scales: Sequence[float], rows: int
) -> Float[Tensor, "layers d_in"]:
    """Return each neuron's attribution: its activation times the mean gradient along its layer's path.

        attr(a_l) = a_l * 1/m sum_s d p(token; a_l <- s a_l) / d a_l,    s in the m scales

    Args:
        last: the text's last token.
        token: whose probability is explained.
        scales: of the activations; the neurons of one layer are scaled together.
        rows: scaled activations that run side by side.
    """
    pairs = [(layer, scale) for layer in range(len(last.neurons)) for scale in scales]
    total = torch.zeros_like(last.neurons)
    for start in range(0, len(pairs), rows):
        chunk = pairs[start : start + rows]
        layers = [layer for layer, _ in chunk]
        factors = torch.tensor([scale for _, scale in chunk], device=total.device)
        with torch.enable_grad():
            scaled = (last.neurons[layers] * factors[:, None]).requires_grad_()
            (gradient,) = torch.autograd.grad(last.probabilities(layers, scaled, token).sum(), scaled)
        row = 0
        for layer, group in groupby(layers):
            count = len(list(group))
            total[layer] += gradient[row : row + count].sum(dim=0)
            row += count
    return last.neurons * total / len(scales)
