"""A model that is made without writing its weights first is the same model."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from collateral.models.meta_init import Unfilled
from tiny import ALL_FAMILIES, tiny_network, tiny_tokenizer

ROPES = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 2.1, 2.2, 2.3],
        "factor": 2.0,
        "original_max_position_embeddings": 64,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def numbers(network):
    """Every parameter and buffer, also those that are not saved."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def both(folder, **options):
    plain = AutoModelForCausalLM.from_pretrained(folder, **options)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with Unfilled():
        ours = AutoModelForCausalLM.from_pretrained(folder, **options)
    assert torch.equal(torch.get_rng_state(), before)
    return plain, ours


def assert_equal(plain, ours):
    first, second = numbers(plain), numbers(ours)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        other = second[name]
        assert (tensor.dtype, tensor.device, tensor.shape) == (other.dtype, other.device, other.shape), name
        assert torch.equal(tensor, other), name
    ids = torch.arange(24)[None]
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, ours(ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_has_the_same_bits(tmp_path, family, dtype):
    tiny_network(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert_equal(*both(tmp_path, dtype=dtype))


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_every_kind_of_rotary_embedding_has_the_same_bits(tmp_path, family, rope):
    network = tiny_network(family)
    if ROPES[rope]:
        network.config.rope_parameters = {"rope_theta": 10000.0, **ROPES[rope]}
    network.save_pretrained(tmp_path)
    assert (AutoConfig.from_pretrained(tmp_path).rope_parameters["rope_type"]) == rope
    assert_equal(*both(tmp_path))


def test_a_weight_that_the_file_lacks_is_still_drawn(tmp_path):
    network = tiny_network("gpt_neox")
    weights = network.state_dict()
    lost = "lm_head.weight"
    assert weights.pop(lost) is not None
    network.save_pretrained(tmp_path, state_dict=weights)
    torch.manual_seed(3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()[lost]
    torch.manual_seed(3)
    with Unfilled():
        ours = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()[lost]
    assert plain.std() > 0
    assert torch.equal(plain, ours)


def test_tensors_in_memory_are_written_and_computed():
    with Unfilled():
        assert torch.nn.init.constant_(torch.empty(3), 2.0).tolist() == [2, 2, 2]
        assert torch.empty(2).fill_(5).tolist() == [5, 5]
        assert (torch.arange(3) / 2).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_tensors_on_meta_have_the_sizes_and_types_that_torch_gives_them(dtype):
    def made():
        ids = torch.arange(2, 20, 2, dtype=dtype, device="meta")
        both = ids[:, None] * ids
        return [
            ids,
            ids / 3,
            2.5**ids,
            1.0 / ids,
            2 * ids,
            ids**2,
            ids * 0.5,
            both,
            both.T / ids,
            torch.arange(3.0),
            torch.empty_like(ids),
            torch.empty_like(both.T),
            torch.empty_like(both, device="cpu"),
        ]

    plain = made()
    with Unfilled():
        ours = made()
    for one, other in zip(plain, ours, strict=True):
        assert (one.shape, one.dtype, one.device, one.stride()) == (
            other.shape,
            other.dtype,
            other.device,
            other.stride(),
        )
