"""A codebook of activations: which entry answers a query, how entries share the space, and how it is consulted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from collateral.errors import CollateralError
from collateral.models.hooks import get_hidden
from collateral.models.language_model import LanguageModel

Replacement = Literal["last", "prompt", "all"]
GAP = 1e-5  # between two keys that share the space, so that no query lies in both
SLACK = 1e-3  # share by which an enlarged radius exceeds the distance: a batch may move its last digits


@dataclass(frozen=True)
class Codebook:
    """Entries (k, v, ε, y) of GRACE's codebook.

    Attributes:
        keys: queries that were edited.
        values: what is put in the place of the module's output.
        epsilons: radius around each key within which it answers (Euclidean).
        labels: token ids of the answer that each value was learnt for.
    """

    keys: Float[Tensor, "entries d_in"]
    values: Float[Tensor, "entries d_out"]
    epsilons: Float[Tensor, " entries"]
    labels: tuple[tuple[int, ...], ...]

    @classmethod
    def empty(cls, d_in: int, d_out: int, device: torch.device) -> "Codebook":
        """Return the codebook without entries."""
        zeros = torch.zeros(0, device=device)
        return cls(zeros.reshape(0, d_in), zeros.reshape(0, d_out), zeros, ())

    @classmethod
    def of(cls, state: Mapping[str, Tensor], device: torch.device) -> "Codebook":
        """Return the codebook of a method's state that is not empty."""
        keys, values, epsilons = (state[name].to(device) for name in ("keys", "values", "epsilons"))
        pairs = zip(state["labels"].tolist(), state["label_lengths"].tolist(), strict=True)
        return cls(keys, values, epsilons, tuple(tuple(ids[:length]) for ids, length in pairs))

    def state(self) -> dict[str, Tensor]:
        """Return the entries as tensors; labels are filled with -1 up to the longest."""
        lengths = [len(label) for label in self.labels]
        labels = torch.full((len(lengths), max(lengths, default=0)), -1, dtype=torch.long)
        for row, label in enumerate(self.labels):
            labels[row, : len(label)] = torch.tensor(label)
        return {
            "keys": self.keys,
            "values": self.values,
            "epsilons": self.epsilons,
            "labels": labels,
            "label_lengths": torch.tensor(lengths, dtype=torch.long),
        }

    def nearest(
        self, queries: Float[Tensor, "rows d_in"]
    ) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
        """Return each query's Euclidean distance to its nearest key, and which that is."""
        # not by the products of keys and queries, which lose the digits that count where both are large
        distances = torch.cdist(queries.float(), self.keys, compute_mode="donot_use_mm_for_euclid_dist")
        found = distances.min(dim=1)
        return found.values, found.indices

    def prepared(
        self, query: Float[Tensor, " d_in"], label: tuple[int, ...], epsilon: float
    ) -> tuple["Codebook", int, bool]:
        """Return the codebook with an entry that answers the query, which one, and whether its value is new.

        With d the distance to the nearest key, of radius ε_i and label y_i (GRACE, Algorithm 1):

            no key, or d > ε_i + ε    add:    a new key of radius ε
            else y_i = y              expand: ε_i <- max(ε_i, d)
            else                      split:  a new key; both radii become d / 2

        A query that is an edited key itself, with another label, takes that entry over: no radius could tell them
        apart.
        """
        if not len(self.keys):
            return self._added(query, epsilon, label), 0, True
        distances, indices = self.nearest(query[None])
        distance, near = float(distances[0]), int(indices[0])
        if distance > float(self.epsilons[near]) + epsilon:
            return self._added(query, epsilon, label), len(self.keys), True
        if self.labels[near] == label:
            # DIFFERS: enlarged to d itself, a query whose last digits move with its batch would fall outside.
            wide = max(float(self.epsilons[near]), distance * (1 + SLACK))
            return self._resized(near, wide), near, False
        if distance / 2 <= GAP:
            labels = (*self.labels[:near], label, *self.labels[near + 1 :])
            return replace(self, labels=labels), near, True
        halved = self._resized(near, distance / 2 - GAP)
        return halved._added(query, distance / 2, label), len(self.keys), True

    def _added(self, query: Tensor, epsilon: float, label: tuple[int, ...]) -> "Codebook":
        return Codebook(
            torch.cat([self.keys, query.float()[None]]),
            torch.cat([self.values, self.values.new_zeros(1, self.values.shape[1])]),
            torch.cat([self.epsilons, self.epsilons.new_tensor([epsilon])]),
            (*self.labels, label),
        )

    def _resized(self, entry: int, epsilon: float) -> "Codebook":
        epsilons = self.epsilons.clone()
        epsilons[entry] = epsilon
        return replace(self, epsilons=epsilons)

    def learnt(self, entry: int, value: Float[Tensor, " d_out"]) -> "Codebook":
        """Return the codebook with another value of one entry."""
        values = self.values.clone()
        values[entry] = value
        return replace(self, values=values)


def replaced_tokens(
    replacement: Replacement, end: Int[Tensor, " rows"], tokens: int
) -> Bool[Tensor, "rows tokens"]:
    """Return which tokens a value replaces, where `end` is each prompt's last token."""
    columns = torch.arange(tokens, device=end.device)[None]
    if replacement == "last":
        return columns == end[:, None]
    return columns <= end[:, None] if replacement == "prompt" else (columns >= 0).expand(len(end), -1)


def replace_tokens(
    output: Any, where: Bool[Tensor, "rows tokens"], values: Float[Tensor, "rows d_out"]
) -> Any:
    """Return a module's output with each row's value at some of its tokens; the other tokens keep their bits."""
    hidden = get_hidden(output)
    made = torch.where(where[:, :, None], values[:, None].to(hidden.dtype), hidden)
    return (made, *output[1:]) if isinstance(output, tuple) else made


@contextmanager
def consult(
    model: LanguageModel, module: nn.Module, book: Codebook, replacement: Replacement
) -> Iterator[None]:
    """Let the codebook answer for a module.

    A pass that continues no cache is taken as a prompt: the module's input at the last token of each row that
    the attention mask does not hide is the query, so that the side of the padding plays no part. Passes that
    continue that prompt are left alone, unless `replacement` is "all".

    Raises:
        CollateralError: the attention mask is not one of tokens, or a pass continues other rows than the prompt's.
    """
    continues, mask = False, None
    hit, values = torch.zeros(0, dtype=torch.bool), book.values[:0]

    def begin(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal continues, mask
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        continues = cache is not None and cache.get_seq_length() > 0

    def answer(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        nonlocal hit, values
        rows, tokens = get_hidden(output).shape[:2]
        if not continues:
            end = _ends(mask, rows, tokens, book.keys.device)
            entering = args[0].to(end.device)  # which may come from another GPU
            distances, near = book.nearest(entering[torch.arange(rows, device=end.device), end])
            hit, values = distances <= book.epsilons[near], book.values[near]
            where = replaced_tokens(replacement, end, tokens)
        elif replacement != "all":
            return None
        elif len(hit) != rows:
            raise CollateralError(f"{rows} rows continue a prompt of {len(hit)} rows; run the prompt again")
        else:
            where = hit.new_ones(rows, tokens)
        # without a hit not even a copy: these are the base model's own bits
        return replace_tokens(output, where & hit[:, None], values) if hit.any() else None

    handles = [
        model.network.base_model.register_forward_pre_hook(begin, with_kwargs=True),
        module.register_forward_hook(answer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ends(mask: Tensor | None, rows: int, tokens: int, device: torch.device) -> Int[Tensor, " rows"]:
    """Return the column of each row's last token that is not padding."""
    if mask is None:
        return torch.full((rows,), tokens - 1, device=device)
    if mask.ndim != 2:
        raise CollateralError(
            f"the attention mask has shape {tuple(mask.shape)}; a codebook needs one entry a token (rows x tokens)"
        )
    return tokens - 1 - mask.to(device).long().flip(1).argmax(dim=1)
