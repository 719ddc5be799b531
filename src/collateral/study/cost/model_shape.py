"""The sizes of a model that decide its costs, from the config or from its downloaded config.json. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.io.atomic import read_json


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes.

    Attributes:
        layers: decoder layers.
        hidden: width of the residual stream.
        intermediate: width of the MLP, d_in of the matrix that most methods edit.
        vocabulary: rows of the embedding.
        keys: width of the keys (and of the values) of all heads; below `hidden` with grouped queries.
        gated: the MLP has three matrices, not two.
        tied: the output projection is the embedding.
        positions: rows of a learnt position embedding; 0 with rotary positions.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    keys: int
    gated: bool = False
    tied: bool = True
    positions: int = 0

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer, without biases and norms (below 0.2 % of it)."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.keys
        return attention + (3 if self.gated else 2) * self.matrix

    @property
    def head(self) -> int:
        """Parameters of the output projection."""
        return self.hidden * self.vocabulary

    @property
    def matrix(self) -> int:
        """Elements of one down projection."""
        return self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        embeddings = self.head * (1 if self.tied else 2) + self.positions * self.hidden
        return embeddings + self.layers * self.layer


def read_shape(manifest: Path, settings: Mapping[str, Any]) -> Shape | None:
    """Return a model's shape: of its downloaded config.json, else of its entry in `models`; None if neither has it.

    Args:
        manifest: of the model; config.json lies beside it.
        settings: the model's entry in `models`.

    Raises:
        CollateralError: config.json is broken.
    """
    downloaded = manifest.with_name("config.json")
    if downloaded.is_file():
        return shape_of_config(read_json(downloaded))
    sizes, layers = settings["shape"], settings["layers"]
    if sizes is None or layers is None:
        return None
    return Shape(layers=layers, **{**sizes, "keys": sizes["keys"] or sizes["hidden"]})


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config.json states, of any family that the project edits."""

    def first(*names: str, default: int = 0) -> int:
        return next((int(config[name]) for name in names if config.get(name)), default)

    hidden, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    family = config.get("model_type", "")
    return Shape(
        layers=first("num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=first("intermediate_size", "n_inner", default=4 * hidden),
        vocabulary=int(config["vocab_size"]),
        keys=first("head_dim", default=hidden // heads) * first("num_key_value_heads", default=heads),
        gated=family in {"llama", "mistral", "qwen2", "qwen3"},
        tied=bool(config.get("tie_word_embeddings", family == "gpt2")),
        positions=first("n_positions") if family == "gpt2" else 0,
    )
