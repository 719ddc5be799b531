"""A forward pass resumed above one layer: what an edit cannot change is computed once.

An edit at layer L, position t (the subject's last token) changes nothing below L, and, attention being causal,
nothing before t at any layer. So the first pass keeps (1) the residual stream after L from t on, and (2) the
keys and values of all positions before t. Every later pass runs layers L+1 … on the positions from t on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from collateral.hooks import capture, hidden_of, replaced_forward
from collateral.models import LanguageModel
from collateral.tokens import fill_id, pad


class ResumedRows:
    """Rows whose pass through the model was run once and can be resumed after layer `layer`.

    Attributes:
        hidden: residual stream after the layer, `rows x suffix x d`; column 0 is the subject's last token.
        keys: input of the layer's down projection at that token, `rows x d_in`.
        values: output of the layer's MLP at that token, `rows x d_out`.
    """

    hidden: Float[Tensor, "rows suffix d"]
    keys: Float[Tensor, "rows d_in"]
    values: Float[Tensor, "rows d_out"]

    def __init__(
        self, model: LanguageModel, rows: Sequence[Sequence[int]], starts: Sequence[int], layer: int
    ):
        """Run the rows once.

        Args:
            model: the model; its weights must stay as they are while this object is used.
            rows: token ids.
            starts: index, in each row, of the token from which the pass will be resumed.
            layer: the layer above which it will be resumed.
        """
        self._model = model
        self._layer = layer
        lead = max(starts)
        self._batch = pad(rows, starts, fill_id(model.tokenizer), model.device)
        cache = DynamicCache()
        down = model.module(model.architecture.down.format(layer))
        mlp = model.module(model.architecture.mlp.format(layer))
        with (
            torch.no_grad(),
            capture(model.block(layer)) as block,
            capture(down) as key,
            capture(mlp) as value,
        ):
            model.network.base_model(
                input_ids=self._batch.ids,
                attention_mask=self._batch.mask,
                position_ids=self._batch.positions,
                past_key_values=cache,
                use_cache=True,
            )
        self.hidden = block["output"][:, lead:]
        self.keys = key["input"][:, lead]
        self.values = value["output"][:, lead]
        self._lead = lead
        layers: list[Any] = cache.layers if lead else []
        self._prefix = [(entry.keys[..., :lead, :], entry.values[..., :lead, :]) for entry in layers]

    def final(self, hidden: Float[Tensor, "rows suffix d"]) -> Float[Tensor, "rows suffix d"]:
        """Return the last hidden states (after the final norm) when `hidden` leaves the layer."""
        model, layer, lead = self._model, self._layer, self._lead
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._prefix):
            cache.update(keys, values, number)

        def skip(hidden_states: Any, *_: Any, **__: Any) -> Any:
            return hidden_states

        def inject(*_: Any, **__: Any) -> Any:
            return hidden

        below: dict[nn.Module, Any] = {model.block(i): skip for i in range(layer)}
        below[model.block(layer)] = inject
        if model.network.config.model_type == "gptj":  # its blocks return a tuple
            below = {block: _as_tuple(forward) for block, forward in below.items()}
        with replaced_forward(below):
            output = model.network.base_model(
                input_ids=self._batch.ids[:, lead:],
                attention_mask=self._batch.mask,
                position_ids=self._batch.positions[:, lead:],
                past_key_values=cache,
                use_cache=True,
            )
        return hidden_of(output.last_hidden_state)


def _as_tuple(forward: Any) -> Any:
    return lambda *args, **kwargs: (forward(*args, **kwargs), None)


def log_probabilities(
    model: LanguageModel,
    final: Float[Tensor, "rows tokens d"],
    row: Int[Tensor, " reads"],
    column: Int[Tensor, " reads"],
) -> Float[Tensor, "reads vocabulary"]:
    """Return log p(next token) where it is read, and nowhere else: the vocabulary projection is expensive."""
    head: nn.Module = model.network.get_output_embeddings()
    logits: Tensor = head(final[row, column])
    return torch.log_softmax(logits.float(), dim=-1)
