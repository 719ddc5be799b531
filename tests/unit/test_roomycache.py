"""What grows in place has the keys and values of a cache that is copied for each token."""

import torch
from transformers import DynamicCache

from collateral.evaluation.lm.kv_cache import ROOM, RoomyLayer, roomy_cache


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_new_tokens_stand_behind_the_others_however_many_come():
    sizes = [20, 1, 1, ROOM, 5, ROOM + 3]
    cache, plain = roomy_cache(), DynamicCache()
    for part in drawn(2, 3, sum(sizes), 4).split(sizes, dim=2):
        for layer in (0, 1):
            found = cache.update(part + layer, -part, layer)
            expected = plain.update(part + layer, -part, layer)
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert cache.get_seq_length() == plain.get_seq_length() == sum(sizes)


def test_a_token_that_finds_room_is_written_where_it_stands():
    cache = roomy_cache([(drawn(2, 3, 7, 4), drawn(2, 3, 7, 4))])
    before, _ = cache.update(drawn(2, 3, 1, 4), drawn(2, 3, 1, 4), 0)
    after, _ = cache.update(drawn(2, 3, 2, 4), drawn(2, 3, 2, 4), 0)
    assert after.data_ptr() == before.data_ptr()
    assert torch.equal(after[:, :, :8], before)


def test_what_a_cache_begins_with_is_not_written_to():
    """Shared beginnings are one row's memory for all rows."""
    begun = drawn(1, 3, 5, 4)
    kept = begun.clone()
    cache = roomy_cache([(begun.expand(4, -1, -1, -1), begun.expand(4, -1, -1, -1))])
    keys, _ = cache.update(drawn(4, 3, 1, 4), drawn(4, 3, 1, 4), 0)
    keys += 1
    assert torch.equal(begun, kept)


def test_rows_that_are_left_grow_on():
    layer = RoomyLayer()
    first, second = drawn(3, 2, 4, 4), drawn(2, 2, 1, 4)
    layer.update(first, -first)
    layer.hold(first[[0, 2], :, 1:], -first[[0, 2], :, 1:])
    keys, values = layer.update(second, -second)
    expected = torch.cat([first[[0, 2], :, 1:], second], dim=2)
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)
