"""Greedy generation with a batch that stays full: a row that has ended makes room for the next context."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache

from collateral.evaluation.lm.kv_cache import roomy_cache
from collateral.evaluation.lm.prefix_tree import common, worth_sharing
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import fill_id, pad


@dataclass(frozen=True)
class Stops:
    """What ends a generated text.

    Attributes:
        decode: tokens → text.
        until: texts that end it.
        ends: tokens that end it.
        most: tokens that it may have.
    """

    decode: Callable[[list[int]], str]
    until: Sequence[str]
    ends: frozenset[int]
    most: int

    def reached(self, tokens: list[int]) -> bool:
        """Return whether the last token of a text ends it."""
        if tokens[-1] in self.ends or len(tokens) >= self.most:
            return True
        # a stop sequence that has just been completed lies within as many tokens as it has bytes
        tail = self.decode(tokens[-max((len(one.encode()) for one in self.until), default=0) - 1 :])
        return any(one and one in tail for one in self.until)


@dataclass(frozen=True)
class Continuation:
    """What follows a context.

    Attributes:
        number: of the context.
        tokens: up to the one that ended the text.
        broken: whether a token was chosen from logits that are not numbers.
    """

    number: int
    tokens: list[int]
    broken: bool


def continued(
    model: LanguageModel, contexts: Sequence[Sequence[int]], stops: Stops, size: int
) -> Iterator[Continuation]:
    """Yield the greedy continuation of each context as soon as it has ended.

    Which rows stand side by side depends on the contexts and on what is generated, never on time.

    Args:
        model: the model.
        contexts: token ids.
        stops: what ends a row.
        size: the most rows at a time.
    """
    head: nn.Module = model.network.get_output_embeddings()
    waiting, alive = deque(_order(contexts)), _Batch(model)
    made: dict[int, list[int]] = {number: [] for number in waiting}
    broken: set[int] = set()
    while waiting or alive.numbers:
        free = size - len(alive.numbers)
        if waiting and 4 * free >= size:  # one by one they would run without company
            numbers = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            final = alive.admit(numbers, [contexts[number] for number in numbers])
        else:
            numbers = alive.numbers
            final = alive.step([made[number][-1] for number in numbers])
        with torch.no_grad():
            logits = head(final)
        broken |= {numbers[row] for row in logits.isnan().any(dim=-1).nonzero()[:, 0].tolist()}
        for number, token in zip(numbers, logits.argmax(dim=-1).tolist(), strict=True):
            made[number].append(token)
        ended = [number for number in numbers if stops.reached(made[number])]
        alive.dismiss(ended)
        yield from (Continuation(number, made.pop(number), number in broken) for number in ended)


def _order(contexts: Sequence[Sequence[int]]) -> list[int]:
    """Return the contexts' numbers: those that begin alike together, the longest first."""
    groups: list[list[int]] = []
    for number in sorted(range(len(contexts)), key=lambda i: (tuple(contexts[i]), i)):
        own = contexts[number]
        if groups and worth_sharing(common(contexts[groups[-1][-1]], own), own):
            groups[-1].append(number)
        else:
            groups.append([number])
    ranked = [sorted(group, key=lambda i: (-len(contexts[i]), tuple(contexts[i]), i)) for group in groups]
    ranked.sort(key=lambda group: (-len(contexts[group[0]]), tuple(contexts[group[0]])))
    return [number for group in ranked for number in group]


class _Batch:
    """Rows that are generated together, with the keys and values of their tokens so far.

    Attributes:
        numbers: of the rows' contexts.
    """

    def __init__(self, model: LanguageModel):
        self._model = model
        # a window is counted in columns: those of a row must be next to each other
        self._windowed = bool(getattr(model.network.config, "sliding_window", None))
        self._cache = roomy_cache()
        self._lead: Sequence[int] = ()  # tokens that contexts began with
        self._kept = roomy_cache()  # their keys and values
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self.numbers: list[int] = []

    def admit(
        self, numbers: Sequence[int], contexts: Sequence[Sequence[int]]
    ) -> Float[Tensor, "rows d_model"]:
        """Take rows in and return the last hidden state of each."""
        cache, lead = self._begun(contexts)
        rests = [context[lead:] for context in contexts]
        batch = pad(rests, [len(rest) for rest in rests], fill_id(self._model.tokenizer), self._mask.device)
        mask = functional.pad(batch.mask, (lead, 0), value=1)
        final = self._run(batch.ids, mask, cache)
        self._join(mask, cache)
        self.numbers = [*self.numbers, *numbers]
        return final

    def _begun(self, contexts: Sequence[Sequence[int]]) -> tuple[Cache, int]:
        """Return keys and values, for each context, of what all of them begin with, and how many tokens that is.

        It runs once, also for the contexts that come later and begin like these.
        """
        longest, most = max(contexts, key=len), min(map(len, contexts)) - 1
        lead = min(most, *(common(self._lead, one) for one in contexts))
        if not worth_sharing(lead, longest):
            lead = min(most, *(common(contexts[0], one) for one in contexts))
            if self._windowed or len(contexts) == 1 or not worth_sharing(lead, longest):
                return roomy_cache(), 0
            self._lead, self._kept = contexts[0][:lead], roomy_cache()
            ids = torch.tensor([self._lead], device=self._mask.device)
            self._run(ids, torch.ones_like(ids), self._kept)
        layers: list[Any] = self._kept.layers
        rows = len(contexts)
        begun = [
            (
                one.keys[:, :, :lead].expand(rows, -1, -1, -1),
                one.values[:, :, :lead].expand(rows, -1, -1, -1),
            )
            for one in layers
        ]
        return roomy_cache(begun), lead

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "rows d_model"]:
        """Take in the next token of each row and return its last hidden state."""
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        return self._run(torch.tensor(tokens, device=self._mask.device)[:, None], self._mask, self._cache)

    def dismiss(self, ended: Sequence[int]) -> None:
        """Let rows go, and the columns that only they had."""
        if not ended:
            return
        stay = [row for row, number in enumerate(self.numbers) if number not in ended]
        self.numbers = [self.numbers[row] for row in stay]
        if not stay:
            self._cache, self._mask = roomy_cache(), self._mask[:0, :0]
            return
        mask = self._mask[stay]
        first = int(mask.any(dim=0).int().argmax())
        self._mask = mask[:, first:]
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.hold(*(one[stay, :, first:] for one in (layer.keys, layer.values)))

    @torch.no_grad()
    def _run(
        self, ids: Int[Tensor, "rows new"], mask: Int[Tensor, "rows span"], cache: Cache
    ) -> Float[Tensor, "rows d_model"]:
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        base: Any = self._model.network.base_model
        output = base(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        final: Tensor = output.last_hidden_state[:, -1]
        return final

    def _join(self, mask: Int[Tensor, "rows span"], cache: Cache) -> None:
        """Put the newcomers' keys and values below the others', all of them ending in the same column."""
        if not self.numbers:
            self._cache, self._mask = cache, mask
            return
        short = mask.shape[1] - self._mask.shape[1]
        own, other = max(short, 0), max(-short, 0)
        self._mask = torch.cat([functional.pad(self._mask, (own, 0)), functional.pad(mask, (other, 0))])
        layers: list[tuple[Any, Any]] = list(zip(self._cache.layers, cache.layers, strict=True))
        for mine, theirs in layers:
            mine.hold(
                *(
                    torch.cat([functional.pad(old, (0, 0, own, 0)), functional.pad(new, (0, 0, other, 0))])
                    for old, new in ((mine.keys, theirs.keys), (mine.values, theirs.values))
                )
            )
