"""lm-eval's view of the edited model: what items share is computed once, and rows leave the batch when they are done.

lm-eval's own HFLM runs context and option as one row each, so that the context of a question with four options runs
four times, and projects every position on the vocabulary. Here the options of one context stand behind it in one row,
each blind to the others by its attention mask and with positions that begin where the context ends; only positions
that predict an option's token are projected.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor, nn
from tqdm import tqdm
from transformers import DynamicCache

from collateral.errors import CollateralError
from collateral.models import LanguageModel
from collateral.tokens import fill_id, pad

Request = tuple[tuple[str, str] | None, list[int], list[int]]
SHARED = 256  # tokens that a row of several continuations may have, or twice its context
READS = 1024  # positions that are projected on the vocabulary at a time


@dataclass(frozen=True)
class Row:
    """A context, and the continuations that are scored behind it.

    Attributes:
        context: its tokens.
        continuations: tokens of each.
        requests: number of the request of each.
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    requests: tuple[int, ...]

    def tokens(self) -> int:
        """Return how many tokens the row has; the last of each continuation is only predicted."""
        return len(self.context) + sum(len(one) - 1 for one in self.continuations)

    def apart(self) -> list["Row"]:
        """Return a row for each continuation."""
        pairs = zip(self.continuations, self.requests, strict=True)
        return [Row(self.context, (tokens,), (number,)) for tokens, number in pairs]

    def longest(self) -> int:
        """Return how many tokens the context has with its longest continuation."""
        return len(self.context) + max(len(one) - 1 for one in self.continuations)


def rows_of(requests: Sequence[Request], most: int) -> list[Row]:
    """Return the rows of some requests, longest first; what is in a row depends on the requests alone.

    Continuations share a row if they have the same context, up to a length: what is long by itself, as the windows of
    a perplexity, gains nothing from sharing.

    Args:
        requests: key, context and continuation each.
        most: tokens that the model takes.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, (_, tokens, continuation) in enumerate(requests):
        # the last token is only predicted
        kept = tuple(tokens[-(most + 1 - len(continuation)) :])
        groups.setdefault(kept, []).append(number)
    rows: list[Row] = []
    for context, numbers in groups.items():
        chosen: list[int] = []
        for number in numbers:
            longer = len(context) + sum(len(requests[one][2]) - 1 for one in [*chosen, number])
            if chosen and longer > min(most, max(SHARED, 2 * len(context))):
                rows.append(_row(context, chosen, requests))
                chosen = []
            chosen.append(number)
        rows.append(_row(context, chosen, requests))
    return sorted(rows, key=lambda row: (-row.tokens(), row.context, row.continuations))


def _row(context: tuple[int, ...], numbers: Sequence[int], requests: Sequence[Request]) -> Row:
    return Row(context, tuple(tuple(requests[one][2]) for one in numbers), tuple(numbers))


@dataclass(frozen=True)
class Packed:
    """Rows side by side.

    Attributes:
        ids: tokens, padded on the right.
        mask: 0 where a position sees another one, else the dtype's lowest number.
        positions: of each token in its own text.
        reads: (row, column) of each position that predicts a token.
        targets: the token to predict at each read.
    """

    ids: Int[Tensor, "rows tokens"]
    mask: Float[Tensor, "rows 1 tokens tokens"]
    positions: Int[Tensor, "rows tokens"]
    reads: Int[Tensor, "reads 2"]
    targets: Int[Tensor, " reads"]


def packed(rows: Sequence[Row], fill: int, dtype: torch.dtype, device: torch.device) -> Packed:
    """Return rows side by side, each continuation blind to its neighbours.

    Args:
        rows: to be scored together.
        fill: token to pad with.
        dtype: of the mask.
        device: where the model begins.
    """
    width = max(row.tokens() for row in rows)
    ids = torch.full((len(rows), width), fill)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    seen = torch.zeros(len(rows), width, width, dtype=torch.bool)
    reads: list[tuple[int, int]] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        end = len(row.context)
        ids[i, :end] = torch.tensor(row.context)
        positions[i, :end] = torch.arange(end)
        seen[i, :end, :end] = True
        start = end
        for tokens in row.continuations:
            stop = start + len(tokens) - 1
            ids[i, start:stop] = torch.tensor(tokens[:-1], dtype=torch.long)
            positions[i, start:stop] = torch.arange(end, end + len(tokens) - 1)
            seen[i, start:stop, :end] = True
            seen[i, start:stop, start:stop] = True
            reads += [(i, end - 1), *((i, column) for column in range(start, stop))]
            targets += tokens
            start = stop
    seen &= torch.ones(width, width, dtype=torch.bool).tril()
    seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself: a softmax needs one number
    mask = torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]
    return Packed(
        ids.to(device),
        mask.to(device),
        positions.to(device),
        torch.tensor(reads, device=device),
        torch.tensor(targets, device=device),
    )


class SharedContextLM(HFLM):  # type: ignore[misc]
    """HFLM with requests that share a context in one row, and a generation whose rows end by themselves.

    Truncation, cache keys and results are HFLM's; log-likelihoods differ from it by rounding.
    """

    def __init__(self, model: LanguageModel, batch_size: int):
        super().__init__(
            pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size, dtype=None
        )
        self._own = model
        self._window: int = getattr(model.network.config, "sliding_window", None) or 0
        self.broken: set[str] = set()  # prompts whose generation met logits that are not numbers

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return (log-likelihood of the continuation in nats, whether greedy decoding gives it) per request."""
        rows, size = rows_of(requests, self.max_length), override_bs or self.batch_size
        if self._window and max((row.longest() for row in rows), default=0) > self._window:
            # the mask of a shared row does not end where a sliding window does
            return list(super()._loglikelihood_tokens(requests, disable_tqdm, override_bs))
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for start in range(0, len(rows), size):
                for number, score in self._each(rows[start : start + size]).items():
                    found[number] = score
                    if requests[number][0] is not None:  # those without a key are parts of a rolling request
                        self.cache_hook.add_partial("loglikelihood", requests[number][0], score)
                    bar.update(1)
        return [found[number] for number in range(len(requests))]

    def _each(self, rows: Sequence[Row]) -> dict[int, tuple[float, bool]]:
        """Return the score of each request of some rows.

        A value that is not a number counts for its neighbours, too, however they are masked: those are asked again.
        """
        found = dict(self._scored(rows))
        for row in rows:
            if len(row.requests) > 1 and any(math.isnan(found[number][0]) for number in row.requests):
                found |= dict(self._scored(row.apart()))
        return found

    @torch.no_grad()
    def _scored(self, rows: Sequence[Row]) -> Iterator[tuple[int, tuple[float, bool]]]:
        network = self._own.network
        batch = packed(rows, fill_id(self._own.tokenizer), network.dtype, self._own.device)
        output = network.base_model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        )
        likelihoods, greedy = self._read(output.last_hidden_state, batch.reads, batch.targets)
        start = 0
        for row in rows:
            for number, tokens in zip(row.requests, row.continuations, strict=True):
                span = slice(start, start := start + len(tokens))
                yield number, (float(likelihoods[span].sum()), bool(greedy[span].all()))

    def _read(self, final: Tensor, reads: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of each target in float64, and whether it is the most probable token."""
        head: nn.Module = self._own.network.get_output_embeddings()
        likelihoods, greedy = [], []
        for part, target in zip(reads.split(READS), targets.split(READS), strict=True):
            # options of one context begin at the same position
            places, back = torch.unique(part, dim=0, return_inverse=True)
            logits = head(final[places[:, 0].to(final.device), places[:, 1].to(final.device)]).float()
            back, target = back.to(logits.device), target.to(logits.device)
            found = logits[back, target] - logits.logsumexp(dim=1)[back]
            likelihoods.append(found.double().cpu())
            greedy.append((logits.argmax(dim=1)[back] == target).cpu())
        return torch.cat(likelihoods), torch.cat(greedy)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that follows each context, cut at its first stop sequence.

        Of greedy requests it is HFLM's, but where two tokens are as probable as each other up to rounding; all others
        are left to it.
        """
        texts: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for numbers in groups.values():
                own = [requests[number] for number in numbers]
                found = (
                    self._greedy(own, bar) if self._is_greedy(own[0].args[1]) else super().generate_until(own)
                )
                texts |= dict(zip(numbers, found, strict=True))
        return [texts[number] for number in range(len(requests))]

    def _is_greedy(self, asked: dict[str, Any]) -> bool:
        """Return whether the most probable token is taken, and nothing else decides."""
        kwargs = normalize_gen_kwargs(asked, self.max_gen_toks)
        sampled = kwargs.pop("do_sample", False) or kwargs.pop("temperature", 0.0)
        others = set(kwargs) - {"until", "max_gen_toks", "temperature", "do_sample"}
        model = self._own.network.generation_config
        penalties = (
            (model.repetition_penalty or 1.0) != 1.0,
            model.no_repeat_ngram_size or model.min_length or model.min_new_tokens,
            model.suppress_tokens or model.begin_suppress_tokens or model.bad_words_ids,
            model.forced_bos_token_id is not None or model.forced_eos_token_id is not None,
            (model.num_beams or 1) > 1,
        )
        return not (sampled or others or any(penalties)) and self.think_end_token is None

    def _greedy(self, requests: Sequence[Any], bar: Any) -> list[str]:
        kwargs = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(kwargs["until"], eos=eos)
        new, room = kwargs["max_gen_toks"], self.max_length - kwargs["max_gen_toks"]
        if room <= 0:
            raise CollateralError(
                f"a task generates up to {new} tokens, but the model takes {self.max_length} in all; lower its "
                "max_gen_toks"
            )
        contexts = [self._encoded(request.args[0], room) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (-len(contexts[i]), requests[i].args[0]))
        found: dict[int, str] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            stops = Stops(self.tok_decode, until, _ids(self._own.network.generation_config.eos_token_id))
            made, broken = continued(self._own, [contexts[i] for i in batch], new, stops)
            self.broken |= {requests[batch[row]].args[0] for row in broken}
            for i, tokens in zip(batch, made, strict=True):
                found[i] = postprocess_generated_text(self.tok_decode(tokens), until, None)
                self.cache_hook.add_partial("generate_until", requests[i].args, found[i])
            bar.update(len(batch))
        return [found[i] for i in range(len(requests))]

    def _encoded(self, text: str, most: int) -> list[int]:
        ids, _ = self.tok_batch_encode([text], left_truncate_len=most, truncation=self.truncation)
        return [int(one) for one in ids[0]]


def _ids(value: int | list[int] | None) -> frozenset[int]:
    return frozenset([value] if isinstance(value, int) else value or [])


@dataclass(frozen=True)
class Stops:
    """What ends a generated text.

    Attributes:
        decode: tokens → text.
        until: texts that end it.
        ends: tokens that end it.
    """

    decode: Callable[[list[int]], str]
    until: Sequence[str]
    ends: frozenset[int]

    def reached(self, tokens: list[int]) -> bool:
        """Return whether the last token of a text ends it."""
        if tokens[-1] in self.ends:
            return True
        # a stop sequence that has just been completed lies within as many tokens as it has bytes
        tail = self.decode(tokens[-max((len(one.encode()) for one in self.until), default=0) - 1 :])
        return any(one and one in tail for one in self.until)


@torch.no_grad()
def continued(
    model: LanguageModel, contexts: Sequence[Sequence[int]], new: int, stops: Stops
) -> tuple[list[list[int]], set[int]]:
    """Return the greedy continuation of each context, up to a stop or `new` tokens, and the rows with broken logits.

    A row that has ended leaves the batch, with its keys and values.

    Args:
        model: the model.
        contexts: token ids.
        new: the most tokens.
        stops: what ends a row.
    """
    base: Any = model.network.base_model
    head: nn.Module = model.network.get_output_embeddings()
    batch = pad(contexts, [len(ids) for ids in contexts], fill_id(model.tokenizer), model.device)
    ids, mask, positions, cache = batch.ids, batch.mask, batch.positions, DynamicCache()
    made: list[list[int]] = [[] for _ in contexts]
    alive, broken = list(range(len(contexts))), set()
    for _ in range(new):
        output = base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        logits = head(output.last_hidden_state[:, -1])
        broken |= {alive[row] for row in logits.isnan().any(dim=-1).nonzero()[:, 0].tolist()}
        chosen = logits.argmax(dim=-1).tolist()
        going = []
        for row, (number, token) in enumerate(zip(alive, chosen, strict=True)):
            made[number].append(token)
            if not stops.reached(made[number]):
                going.append(row)
        if not going:
            break
        if len(going) < len(alive):
            index = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(index)
            mask, positions = mask[index], positions[index]
            alive = [alive[row] for row in going]
        ids = torch.tensor([[made[number][-1]] for number in alive], device=model.device)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return made, broken
