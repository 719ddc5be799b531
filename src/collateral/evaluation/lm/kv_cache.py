"""Keys and values of texts that grow: a cache with room for the tokens to come.

transformers' own cache copies all keys and values for each new token.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns that are allocated at a time


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, columns, d_head), with columns behind them that are still free."""

    _roomy: tuple[Tensor, Tensor] | None = None  # what keys and values are the first columns of

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Replace keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.keys, self.values, self._roomy = keys, values, None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values with those of new tokens behind them."""
        if not self.is_initialized:
            self.hold(key_states[:, :, :0], value_states[:, :, :0])
        keys, values = cast(tuple[Tensor, Tensor], (self.keys, self.values))
        begin = keys.shape[2]
        end = begin + key_states.shape[2]
        if self._roomy is None or end > self._roomy[0].shape[2]:
            self._roomy = _wider(keys, end + ROOM), _wider(values, end + ROOM)
        for roomy, new in zip(self._roomy, (key_states, value_states), strict=True):
            roomy[:, :, begin:end] = new
        self.keys, self.values = (roomy[:, :, :end] for roomy in self._roomy)
        return self.keys, self.values


def roomy_cache(layers: list[tuple[Tensor, Tensor]] | None = None) -> Cache:
    """Return a cache for any number of layers, or one that begins with the keys and values of each."""
    if layers is None:
        return Cache(layer_class_to_replicate=RoomyLayer)
    cache = roomy_cache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def _wider(held: Tensor, columns: int) -> Tensor:
    rows, heads, begin, size = held.shape
    made = torch.empty(rows, heads, columns, size, dtype=held.dtype, device=held.device)
    made[:, :, :begin] = held
    return made
