"""Passes over a part of the model: activations that an edit cannot change are computed once.

An edit at layer L, position t (the subject's last token) changes nothing below L, and, attention being causal,
nothing before t at any layer. So the first pass keeps (1) the residual stream after L from t on, and (2) the
keys and values of all positions before t. Every later pass runs layers L+1 … on the positions from t on. In the
same way, an edit of several layers changes nothing below the first: its keys and residuals are measured from
the residual stream there (`Stem`).
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from collateral.models.hooks import capture, get_hidden, replace_forward, stop_after, stop_at
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import Batch, fill_id, pad


def run_part(
    model: LanguageModel,
    batch: Batch,
    *,
    after: int = -1,
    hidden: Float[Tensor, "rows tokens d"] | None = None,
    cache: DynamicCache | None = None,
) -> Float[Tensor, "rows tokens d"]:
    """Return the last hidden states (after the final norm) of a pass that begins after a layer.

    Args:
        model: the model.
        batch: token rows; with a cache, `mask` also covers the cached positions.
        after: the layers up to this one do not run; -1 runs all.
        hidden: the residual stream that leaves that layer.
        cache: keys and values of earlier positions, at every layer that runs and at layer 0.
    """

    def skip(hidden_states: Any, *_: Any, **__: Any) -> Any:
        return hidden_states

    def inject(*_: Any, **__: Any) -> Any:
        return hidden

    below: dict[nn.Module, Any] = {model.block(i): skip for i in range(after)}
    if after >= 0:
        below[model.block(after)] = inject
    if model.network.config.model_type == "gptj":  # its blocks return a tuple
        below = {block: _as_tuple(forward) for block, forward in below.items()}
    with replace_forward(below):
        output = model.network.base_model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return get_hidden(output.last_hidden_state)


def _as_tuple(forward: Any) -> Any:
    return lambda *args, **kwargs: (forward(*args, **kwargs), None)


@dataclass
class Stem:
    """Rows that end at the subject's last token, with the residual stream after a layer (-1: not yet run).

    Attributes:
        batch: token rows, aligned at their ends.
        after: the layer.
        hidden: the residual stream that leaves it, `rows x tokens x d`; None where `after` is -1.
        owner: number of the fact of each row.
        template: number of the context template of each row.
    """

    batch: Batch
    after: int
    hidden: Float[Tensor, "rows tokens d"] | None
    owner: tuple[int, ...]
    template: tuple[int, ...]

    def keys(self, model: LanguageModel, layer: int) -> tuple[Float[Tensor, "rows d_in"], "Stem"]:
        """Return the input of a layer's down projection at the subject, and the stem moved on to below that layer."""
        with torch.no_grad(), ExitStack() as hooks:
            held = hooks.enter_context(stop_at(model.down(layer)))
            moved = hooks.enter_context(capture(model.block(layer - 1))) if layer - 1 > self.after else None
            run_part(model, self.batch, after=self.after, hidden=self.hidden)
        if moved is None:
            return held["input"][:, -1], self
        return held["input"][:, -1], Stem(self.batch, layer - 1, moved["output"], self.owner, self.template)

    def outputs(self, model: LanguageModel, module: nn.Module) -> Float[Tensor, "rows d"]:
        """Return a module's output at the subject, with the model's current weights."""
        with torch.no_grad(), stop_after(module) as seen:
            run_part(model, self.batch, after=self.after, hidden=self.hidden)
        return seen["output"][:, -1]

    def bare(self) -> "Stem":
        """Return the rows of the bare prompts (template 0)."""
        return self.select([i for i, template in enumerate(self.template) if template == 0])

    def select(self, rows: Sequence[int]) -> "Stem":
        """Return some of the rows."""
        index = torch.tensor(rows, device=self.batch.ids.device)
        hidden = None if self.hidden is None else self.hidden[index.to(self.hidden.device)]
        batch = Batch(self.batch.ids[index], self.batch.mask[index], self.batch.positions[index])
        owner, template = (tuple(all_[i] for i in rows) for all_ in (self.owner, self.template))
        return Stem(batch, self.after, hidden, owner, template)


class ResumedRows:
    """Rows whose pass through the model was run once and can be resumed after a layer.

    Attributes:
        hidden: residual stream after the layer, `rows x suffix x d`; column 0 is the start's token. None where
            nothing was run before the suffix (`after` is -1).
        seen: output of each watched module at the start's token, `rows x d`.
        keys: input of the watched down projection at that token, `rows x d_in`.
    """

    hidden: Float[Tensor, "rows suffix d"] | None
    seen: dict[str, Float[Tensor, "rows d"]]
    keys: Float[Tensor, "rows d_in"]

    def __init__(
        self,
        model: LanguageModel,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        after: int,
        layer: int,
        watched: Mapping[str, nn.Module],
        stem_after: int = -1,
    ):
        """Run the rows once.

        Args:
            model: the model; its weights must stay as they are while this object is used.
            rows: token ids.
            starts: index, in each row, of the token from which the pass will be resumed.
            after: the layer after which it will be resumed; -1 resumes at the embeddings.
            layer: the layer whose down projection's input is kept.
            watched: modules whose outputs are kept, by a name of the caller's.
            stem_after: the layer after which `stem` will begin; -1 for the embeddings.
        """
        self._model, self._after = model, after
        lead = max(starts)
        whole = pad(rows, starts, fill_id(model.tokenizer), model.device)
        cache = DynamicCache()
        with torch.no_grad(), ExitStack() as hooks:
            key = hooks.enter_context(capture(model.down(layer)))
            outputs = {name: hooks.enter_context(capture(module)) for name, module in watched.items()}
            entering = [
                hooks.enter_context(capture(model.block(number))) if number >= 0 else {}
                for number in (after, stem_after)
            ]
            run_part(model, whole, cache=cache)
        self.keys = key["input"][:, lead]
        self.seen = {name: output["output"][:, lead] for name, output in outputs.items()}
        resumed, stem = (held.get("output") for held in entering)
        self.hidden = None if resumed is None else resumed[:, lead:]
        self._stem_after, self._stem_hidden = stem_after, None if stem is None else stem[:, : lead + 1]
        self._lead, self._whole = lead, whole
        self._widths = [len(ids) - start for ids, start in zip(rows, starts, strict=True)]
        kept = [number for number in range(model.layers) if number == 0 or number > after] if lead else []
        layers: list[Any] = cache.layers
        self._prefix = {
            number: (layers[number].keys[..., :lead, :].clone(), layers[number].values[..., :lead, :].clone())
            for number in kept  # copies: a view would keep the whole pass
        }

    def stem(self, owner: Sequence[int], template: Sequence[int]) -> Stem:
        """Return the rows up to the start's token as a stem, with their facts and templates."""
        upto = slice(0, self._lead + 1)
        batch = Batch(self._whole.ids[:, upto], self._whole.mask[:, upto], self._whole.positions[:, upto])
        return Stem(batch, self._stem_after, self._stem_hidden, tuple(owner), tuple(template))

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and the columns that only the others needed; `seen` and `keys` stay."""
        index = torch.tensor(rows, device=self._whole.ids.device)
        self._widths = [self._widths[row] for row in rows]
        upto = slice(0, self._lead + max(self._widths))
        self._whole = Batch(
            *(part[index, upto] for part in (self._whole.ids, self._whole.mask, self._whole.positions))
        )
        if self.hidden is not None:
            self.hidden = self.hidden[index.to(self.hidden.device), : max(self._widths)]
        self._prefix = {  # each layer's lie on its own GPU
            number: (keys[index.to(keys.device)], values[index.to(values.device)])
            for number, (keys, values) in self._prefix.items()
        }

    def final(self, hidden: Float[Tensor, "rows suffix d"] | None) -> Float[Tensor, "rows suffix d"]:
        """Return the last hidden states (after the final norm) when `hidden` leaves the layer."""
        cache = DynamicCache()
        for number, (keys, values) in self._prefix.items():
            cache.update(keys, values, number)
        suffix = Batch(
            self._whole.ids[:, self._lead :], self._whole.mask, self._whole.positions[:, self._lead :]
        )
        return run_part(self._model, suffix, after=self._after, hidden=hidden, cache=cache)


def log_probabilities(
    model: LanguageModel,
    final: Float[Tensor, "rows tokens d"],
    row: Int[Tensor, " reads"],
    column: Int[Tensor, " reads"],
) -> Float[Tensor, "reads vocabulary"]:
    """Return log p(next token) where it is read, and nowhere else: the vocabulary projection is expensive.

    It lies on the model's `device`, whichever GPU holds the last layer.
    """
    head: nn.Module = model.network.get_output_embeddings()
    logits: Tensor = head(final[row.to(final.device), column.to(final.device)])
    return torch.log_softmax(logits.float(), dim=-1).to(model.device)
