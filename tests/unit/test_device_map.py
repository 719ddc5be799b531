"""Which GPU holds which part: balance, ties, order, and how a model that fits nowhere is refused."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collateral.errors import CollateralError
from collateral.models import device_map
from collateral.models.language_model import load_model
from tiny import ALL_FAMILIES, tiny_network
from unit.test_chain import Project


def shares(sizes, free, placed):
    held = [
        sum(size for size, gpu in zip(sizes, placed, strict=True) if gpu == own) for own in range(len(free))
    ]
    return [one / whole for one, whole in zip(held, free, strict=True)]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.lists(st.integers(20, 100), min_size=1, max_size=3),
)
def test_no_other_cut_leaves_the_fullest_gpu_emptier(sizes, free):
    """Against all ways to cut the row of parts."""
    ways = itertools.combinations_with_replacement(range(len(free)), len(sizes))
    best = min(max(shares(sizes, free, way)) for way in ways)
    placed = device_map.balance_sizes(sizes, free)
    if placed is None:
        assert best > (1 - device_map.ROOM) * (1 - 1e-9)
    else:
        assert placed == sorted(placed)
        assert max(shares(sizes, free, placed)) == pytest.approx(best)


def test_the_parts_of_a_tied_model_by_hand():
    """LLaMA: 320 x 32 tied embeddings, 4 layers, a norm; rotary positions have two buffers of 4 float32 each."""
    layer = 4 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32)
    found = list(device_map.iterate_parts(tiny_network("llama")))
    assert found[0] == (("model.embed_tokens", "model.rotary_emb", "lm_head"), 4 * 320 * 32 + 2 * 4 * 4)
    assert found[1:5] == [((f"model.layers.{i}",), layer) for i in range(4)]
    assert found[5:] == [(("model.norm",), 4 * 32)]
    placed = device_map.balance_layers(tiny_network("llama"), [200_000, 200_000])
    assert (
        placed
        == {  # one layer beside the embeddings, three on the other GPU: 78 kB and 111 kB, not 115 and 74
            **dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "lm_head", "model.layers.0"), 0),
            **dict.fromkeys(("model.layers.1", "model.layers.2", "model.layers.3", "model.norm"), 1),
        }
    )
    assert device_map.sum_weights(tiny_network("llama"), placed) == [40_992 + layer, 3 * layer + 128]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_weight_is_placed_once_and_no_layer_is_cut(family):
    network = tiny_network(family)
    whole = sum(one.numel() * one.element_size() for one in (*network.parameters(), *network.buffers()))
    assert sum(size for _, size in device_map.iterate_parts(network)) == whole
    names = [name for own, _ in device_map.iterate_parts(network) for name in own]
    for weight, _ in network.named_parameters(remove_duplicate=False):
        assert sum(f"{weight}.".startswith(f"{name}.") for name in names) == 1, weight
    held = device_map.sum_weights(network, device_map.balance_layers(network, [whole] * 3))
    assert sum(held) == whole
    assert len(held) == 3


def test_a_skeleton_has_the_sizes_of_the_model_and_none_of_its_numbers(tmp_path, facts):
    folder = Project(tmp_path, facts).model
    skeleton = device_map.build_skeleton(folder, torch.bfloat16)
    assert {one.device.type for one in skeleton.parameters()} == {"meta"}
    loaded = load_model(folder, "bfloat16").network
    assert list(device_map.iterate_parts(skeleton)) == list(device_map.iterate_parts(loaded))


def test_a_model_that_does_not_fit_is_refused_with_what_it_takes_and_what_there_is(
    monkeypatch, tmp_path, facts
):
    folder = Project(tmp_path, facts).model
    monkeypatch.setattr(device_map, "measure_free_memory", lambda: [100_000, 90_000])
    with pytest.raises(
        CollateralError, match=r"0\.0 GB as float32.*90 % .* 2 GPU.*models\.\*\.gpus"
    ) as caught:
        load_model(folder, "float32", "cuda:all")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(device_map, "measure_free_memory", list)
    with pytest.raises(CollateralError, match="this process sees no CUDA GPU"):
        load_model(folder, "float32", "cuda:all")
