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
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate

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


def shape_of_settings(model: Mapping[str, Any]) -> Shape | None:
    """Return the shape that an entry of `models` states; None without `layers` or `shape`."""
    own, layers = model["shape"], model["layers"]
    if own is None or layers is None:
        return None
    return Shape(layers=layers, **{**own, "keys": own["keys"] or own["hidden"]})


def shape_of_config(path: Path) -> Shape:
    """Return the shape in a model's config.json, of any family that the project edits.

    Raises:
        CollateralError: the file is missing or not JSON.
    """
    config = read_json(path)
    hidden = _first(config, "hidden_size", "n_embd")
    heads = _first(config, "num_attention_heads", "n_head")
    width = config.get("head_dim") or hidden // heads
    family = config.get("model_type", "")
    return Shape(
        layers=_first(config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=_first(config, "intermediate_size", "n_inner", default=4 * hidden),
        vocabulary=int(config["vocab_size"]),
        keys=width * _first(config, "num_key_value_heads", default=heads),
        gated=family in {"llama", "mistral", "qwen2", "qwen3"},
        tied=bool(config.get("tie_word_embeddings", family == "gpt2")),
        positions=_first(config, "n_positions", default=0) if family == "gpt2" else 0,
    )


def _first(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    return next((int(config[name]) for name in names if config.get(name)), default)
