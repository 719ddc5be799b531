"""Where things are in a tokenised prompt, found by character offsets and so independent of padding.

The released editors tokenise the pieces of a prompt one by one and count; that breaks on subjects that merge
with punctuation, on SentencePiece's extra tokens and on left padding. Offsets of one joint tokenisation do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from collateral.errors import CollateralError


@dataclass(frozen=True)
class Row:
    """One tokenised text.

    Attributes:
        ids: token ids of prompt and target.
        prompt_length: number of tokens of the prompt; `ids[prompt_length:]` is the target.
        subject_last: index of the subject's last token; -1 where no subject was named.
    """

    ids: tuple[int, ...]
    prompt_length: int
    subject_last: int = -1

    @property
    def target(self) -> tuple[int, ...]:
        """Token ids of the target."""
        return self.ids[self.prompt_length :]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    target: str = "",
    subject: tuple[int, int] | None = None,
) -> Row:
    """Return prompt and target tokenised as one text; the target gets one leading space.

    Args:
        tokenizer: a fast tokenizer.
        prompt: plain text.
        target: continuation, with or without its leading space.
        subject: character span of the subject in the prompt.

    Raises:
        CollateralError: the target, or the subject, has no token of its own.
    """
    continuation = "" if not target else " " + target.removeprefix(" ")
    encoded = tokenizer(prompt + continuation, return_offsets_mapping=True)
    offsets: Sequence[tuple[int, int]] = encoded["offset_mapping"]
    length = sum(1 for start, end in offsets if end <= len(prompt) and not _straddles(start, end, prompt))
    if target and length == len(offsets):
        raise CollateralError(
            f"the target {target!r} has no token after the prompt {prompt!r}; change the fact, or leave it out"
        )
    last = -1
    if subject is not None:
        inside = [i for i, (s, e) in enumerate(offsets) if s < subject[1] and e > subject[0] and e > s]
        if not inside:
            raise CollateralError(
                f"no token covers the subject at {subject} of the prompt {prompt!r}; change the fact, or leave it out"
            )
        last = inside[-1]
    return Row(tuple(encoded["input_ids"]), length, last)


def _straddles(start: int, end: int, prompt: str) -> bool:
    return start < len(prompt) < end


@dataclass(frozen=True)
class Batch:
    """Rows side by side, with positions that do not depend on the padding; the mask may span a cache before them."""

    ids: Int[Tensor, "rows tokens"]
    mask: Int[Tensor, "rows span"]
    positions: Int[Tensor, "rows tokens"]


def pad(rows: Sequence[Sequence[int]], starts: Sequence[int], fill: int, device: torch.device) -> Batch:
    """Return the rows shifted so that row i's token number `starts[i]` stands in one common column.

    All zeros in `starts` is right padding, all lengths is left padding; a subject's last token in
    `starts` lines the subjects up. Position ids count real tokens only, so that a row's numbers are the
    same wherever it stands.
    """
    lead = max(starts)
    width = lead + max(len(ids) - start for ids, start in zip(rows, starts, strict=True))
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, lead - start : lead - start + len(row)] = torch.tensor(row)
        mask[i, lead - start : lead - start + len(row)] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return Batch(ids.to(device), mask.to(device), positions.to(device))


def fill_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return a token id to pad with; what it is never matters, because padding is masked."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int):
            return candidate
    return 0
