"""Texts that begin alike, scored in one row: a tree of tokens whose branches do not see each other.

The options of a question share its context, two of them often more than that, and questions their examples. What
they share is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Request = tuple[tuple[str, str] | None, list[int], list[int]]
SHARED = 256  # tokens that a row of several texts may have, or twice its longest text


@dataclass(frozen=True)
class Text:
    """A context with a continuation.

    Attributes:
        number: of the request.
        ids: tokens of both, without the last one, which is only predicted.
        continuation: tokens that the last positions of `ids` predict.
    """

    number: int
    ids: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Texts that are scored together, in the order of their tokens."""

    texts: tuple[Text, ...]

    def tokens(self) -> int:
        """Return how many tokens the row has; what a text shares is shared with its neighbour."""
        pairs = zip(self.texts, self.texts[1:], strict=False)
        return sum(len(text.ids) for text in self.texts) - sum(
            common_length(text.ids, after.ids) for text, after in pairs
        )

    def split(self) -> list["Row"]:
        """Return a row for each text."""
        return [Row((text,)) for text in self.texts]

    def longest(self) -> int:
        """Return how many tokens the longest text has."""
        return max(len(text.ids) for text in self.texts)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts have in common from their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def worth_sharing(shared: int, text: Sequence[int]) -> bool:
    """Return whether what a text shares is a quarter of it: a word or two save less than a longer row costs."""
    return 4 * shared >= len(text)


def plan_rows(requests: Sequence[Request], limit: int) -> list[Row]:
    """Return the rows of some requests, longest first; what is in a row depends on the requests alone.

    Args:
        requests: key, context and continuation each.
        limit: tokens that the model takes.
    """
    texts = []
    for number, (_, context, continuation) in enumerate(requests):
        ids = [*context, *continuation][-(limit + 1) :][:-1]
        texts.append(Text(number, tuple(ids), tuple(continuation)))
    rows: list[list[Text]] = []
    size = longest = 0
    for text in sorted(texts, key=lambda text: (text.ids, text.continuation)):
        shared = common_length(rows[-1][-1].ids, text.ids) if rows else 0
        size, longest = size + len(text.ids) - shared, max(longest, len(text.ids))
        if not worth_sharing(shared, text.ids) or size > min(limit, max(SHARED, 2 * longest)):
            rows.append([])
            size = longest = len(text.ids)
        rows[-1].append(text)
    return sorted(
        (Row(tuple(group)) for group in rows),
        key=lambda row: (-row.tokens(), row.texts[0].ids, row.texts[0].continuation),
    )


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


def pack_rows(rows: Sequence[Row], fill: int, dtype: torch.dtype, device: torch.device) -> Packed:
    """Return rows side by side, each text blind to the branches beside it.

    Args:
        rows: to be scored together.
        fill: token to pad with.
        dtype: of the mask.
        device: where the model begins.
    """
    width = max(row.tokens() for row in rows)
    ids = torch.full((len(rows), width), fill)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    # padding sees itself: a softmax needs one number
    seen = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    reads: list[tuple[int, int]] = []
    for i, row in enumerate(rows):
        columns: list[int] = []  # of the text's tokens
        before: tuple[int, ...] = ()
        start = 0
        for text in row.texts:
            shared = common_length(before, text.ids)
            stop = start + len(text.ids) - shared
            ids[i, start:stop] = torch.tensor(text.ids[shared:], dtype=torch.long)
            positions[i, start:stop] = torch.arange(shared, len(text.ids))
            seen[i, start:stop, columns[:shared]] = True
            seen[i, start:stop, start:stop] = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
            columns = [*columns[:shared], *range(start, stop)]
            reads += [(i, column) for column in columns[-len(text.continuation) :]]
            before, start = text.ids, stop
    mask = torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]
    targets = [token for row in rows for text in row.texts for token in text.continuation]
    return Packed(
        ids.to(device),
        mask.to(device),
        positions.to(device),
        torch.tensor(reads, device=device),
        torch.tensor(targets, device=device),
    )
