"""Greedy generation in batches: a shared beginning of the contexts runs once, and a row that has ended leaves."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache

from collateral.evaluation.lm.prefix_tree import common_length, worth_sharing
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import fill_id, pad


@dataclass(frozen=True)
class StopRule:
    """What ends a generated text.

    Attributes:
        decode: tokens → text.
        until: texts that end it.
        end_tokens: tokens that end it.
        limit: the most tokens that it may have.
    """

    decode: Callable[[list[int]], str]
    until: Sequence[str]
    end_tokens: frozenset[int]
    limit: int

    def is_met(self, tokens: list[int]) -> bool:
        """Return whether the last token of a text ends it."""
        if tokens[-1] in self.end_tokens or len(tokens) >= self.limit:
            return True
        # a stop sequence that has just been completed lies within as many tokens as it has bytes
        tail = self.decode(tokens[-max((len(text.encode()) for text in self.until), default=0) - 1 :])
        return any(text and text in tail for text in self.until)


@dataclass
class Continuation:
    """What follows a context.

    Attributes:
        number: of the context.
        tokens: up to the one that ended the text.
        broken: whether a token was chosen from logits that are not numbers.
    """

    number: int
    tokens: list[int]
    broken: bool = False


def generate_greedily(
    model: LanguageModel, contexts: Sequence[Sequence[int]], stop_rule: StopRule, batch_size: int
) -> Iterator[Continuation]:
    """Yield the greedy continuation of each context as soon as it has ended.

    Which rows form a batch depends on the contexts alone: the longest first, as in lm-eval.

    Args:
        model: the model.
        contexts: token ids.
        stop_rule: what ends a row.
        batch_size: rows of a batch.
    """
    order = sorted(range(len(contexts)), key=lambda i: (-len(contexts[i]), tuple(contexts[i]), i))
    for start in range(0, len(order), batch_size):
        rows = [Continuation(number, []) for number in order[start : start + batch_size]]
        yield from _continue_rows(model, rows, [contexts[row.number] for row in rows], stop_rule)


@torch.no_grad()
def _continue_rows(
    model: LanguageModel, rows: list[Continuation], contexts: Sequence[Sequence[int]], stop_rule: StopRule
) -> Iterator[Continuation]:
    """Yield the rows of one batch as they end."""
    network: Any = model.network
    head: nn.Module = network.get_output_embeddings()
    cache = DynamicCache(config=network.config)
    shared = _shared_length(model, contexts)
    if shared:
        first = torch.tensor([contexts[0][:shared]], device=model.device)
        network.base_model(input_ids=first, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
    rests = [context[shared:] for context in contexts]
    batch = pad(rests, [len(rest) for rest in rests], fill_id(model.tokenizer), model.device)
    ids, mask = batch.ids, functional.pad(batch.mask, (shared, 0), value=1)
    while True:
        output = network.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        )
        logits = head(output.last_hidden_state[:, -1])
        tokens = logits.argmax(dim=-1)
        for row, token, broken in zip(
            rows, tokens.tolist(), logits.isnan().any(dim=-1).tolist(), strict=True
        ):
            row.tokens.append(token)
            row.broken |= broken
        kept = [place for place, row in enumerate(rows) if not stop_rule.is_met(row.tokens)]
        yield from (row for place, row in enumerate(rows) if place not in kept)
        if not kept:
            return
        if len(kept) < len(rows):
            rows = [rows[place] for place in kept]
            cache.batch_select_indices(
                torch.tensor(kept)
            )  # in main memory, as layers may lie on several GPUs
            mask, tokens = mask[kept], tokens[kept]
        ids, mask = tokens[:, None], functional.pad(mask, (0, 1), value=1)


def _shared_length(model: LanguageModel, contexts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all contexts begin with; 0 where sharing them does not pay, or is not possible."""
    if len(contexts) == 1 or getattr(model.network.config, "sliding_window", None):
        return 0  # a window is counted in columns, and padding would stand between those of a row
    shared = min(
        len(min(contexts, key=len)) - 1, *(common_length(contexts[0], context) for context in contexts)
    )
    return shared if worth_sharing(shared, max(contexts, key=len)) else 0
