"""Tiny random models of every family and their tokenizer."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from collateral.models.language_model import LanguageModel, wrap

FAMILIES = ("gpt2", "llama", "gpt_neox", "gptj")  # the four kinds: most tests run on these
ALL_FAMILIES = (*FAMILIES, "mistral", "qwen2", "qwen3")
WORDS = """The capital of Avalon is Camelot. Merlin lives in Camelot near the river. The founder of the Round Table
is Arthur. Lancelot was born in Benwick and speaks French. Because I think, you think. Therefore the sea is blue.
The author of the book is unknown, and the capital of Logres is Caerleon."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences: offsets, no unknown tokens, some merged words."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(WORDS.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", bos_token="<eos>"
    )


def tiny_network(family: str, dtype: torch.dtype = torch.float32):
    """A random model with 4 layers, d 32, MLP 64 (deterministic)."""
    torch.manual_seed(0)
    size = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if family == "gpt2":
        network = GPT2LMHeadModel(
            GPT2Config(n_layer=4, n_embd=32, n_head=4, n_inner=64, n_positions=128, **size)
        )
    elif family == "gptj":
        network = GPTJForCausalLM(
            GPTJConfig(n_layer=4, n_embd=32, n_head=4, n_inner=64, n_positions=128, rotary_dim=4, **size)
        )
    else:
        shape = {
            "num_hidden_layers": 4,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        }
        if family == "gpt_neox":
            network = GPTNeoXForCausalLM(GPTNeoXConfig(initializer_range=0.2, **shape, **size))
        else:
            shape |= {"num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.2}
            kind, config = {
                "llama": (LlamaForCausalLM, LlamaConfig),
                "mistral": (MistralForCausalLM, MistralConfig),
                "qwen2": (Qwen2ForCausalLM, Qwen2Config),
                "qwen3": (Qwen3ForCausalLM, Qwen3Config),
            }[family]
            own = {"head_dim": 8} if family in ("mistral", "qwen3") else {}
            network = kind(config(**shape, **size, **own))
    return network.to(dtype)


def tiny_model(family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return wrap(tiny_network(family, dtype), tiny_tokenizer(), f"tiny-{family}")


TEMPLATES = ("{}", "The sea is blue. {}", "Because I think. {}", "You. {}")
