"""Load a model from its verified folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import read_json
from collateral.models.architecture import Architecture, family_names, load_family
from collateral.models.device_map import ALL, spread_over_gpus
from collateral.models.manifest import DTYPES, described_source, verified_manifest


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer, its family's module paths and its identity.

    Matrices are handed out as `d_out x d_in`, whatever the family stores; keys are columns of length
    d_in, values of length d_out.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    base_sha256: str
    source: str = ""

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.network.config.num_hidden_layers)

    @property
    def device(self) -> torch.device:
        """Where tokens enter, and log-probabilities are read; the weights too, unless they are spread over GPUs."""
        return self.network.device

    def module(self, path: str) -> nn.Module:
        """Return the submodule at a dotted path."""
        return self.network.get_submodule(path)

    def block(self, layer: int) -> nn.Module:
        """Return decoder layer number `layer` (0 is the first)."""
        return self.module(self.architecture.block.format(layer))

    def mlp(self, layer: int) -> nn.Module:
        """Return the MLP of a layer."""
        return self.module(self.architecture.mlp.format(layer))

    def down(self, layer: int) -> nn.Module:
        """Return the down projection of a layer's MLP."""
        return self.module(self.architecture.down.format(layer))

    def attention(self, layer: int) -> nn.Module:
        """Return the output projection of a layer's attention."""
        return self.module(self.architecture.attention.format(layer))

    def down_name(self, layer: int) -> str:
        """Return the parameter name of a layer's down projection, after checking the layer number.

        Raises:
            CollateralError: the model has no such layer.
        """
        return self._checked(layer, self.architecture.down)

    def input_names(self, layer: int) -> tuple[str, ...]:
        """Return the parameter names of a layer's MLP input projections, after checking the layer number."""
        return tuple(self._checked(layer, path) for path in self.architecture.inputs)

    def _checked(self, layer: int, path: str) -> str:
        if not 0 <= layer < self.layers:
            raise CollateralError(
                f"layer {layer} is outside the model: it has layers 0 to {self.layers - 1}; name one of them"
            )
        return path.format(layer) + ".weight"

    def matrix(self, name: str) -> Float[Tensor, "*shape"]:
        """Return a parameter as a `d_out x d_in` view: writing into it changes the model."""
        return self.oriented(self.network.get_parameter(name).data)

    def oriented(self, stored: Tensor) -> Tensor:
        """Return the `d_out x d_in` view of a tensor that lies as this family stores it."""
        return stored.T if self.architecture.transposed and stored.ndim == 2 else stored


def wrap(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base_sha256: str, source: str = ""
) -> LanguageModel:
    """Return a LanguageModel around a loaded network, frozen and in evaluation mode.

    Raises:
        CollateralError: the family is not in the table of module paths, or the tokenizer is a slow one.
    """
    architecture = load_family(network.config.model_type)
    if not tokenizer.is_fast:
        raise CollateralError(
            f"the tokenizer of {tokenizer.name_or_path} is a slow one; take a model with a fast one, because "
            "the subject's last token is found by character offsets"
        )
    network.eval().requires_grad_(False)
    return LanguageModel(network, tokenizer, architecture, base_sha256, source)


def _check_code(folder: Path) -> None:
    """Refuse a model that only code of its own could load, before transformers asks whether to run it.

    Raises:
        CollateralError: its family is none of `families/`, and its config.json names code.
    """
    config = read_json(folder / "config.json")
    if config.get("auto_map") and config.get("model_type") not in family_names():
        raise CollateralError(
            f"{folder}: the family {config.get('model_type')!r} needs code of the model's own (auto_map in "
            f"config.json), which is never run; take a model of {', '.join(family_names())}"
        )


def load_model(folder: Path, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """Return the model of a verified folder: safetensors only, no code from the folder is run.

    Args:
        folder: the model's.
        dtype: of the weights.
        device: cpu, cuda, cuda:N, or cuda:all, which spreads whole layers over the GPUs that the process sees.

    Raises:
        CollateralError: a file does not match the manifest, the dtype or the family is unknown, or the GPUs are too
            small.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    _, identity = verified_manifest(folder)
    _check_code(folder)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers_logging.disable_progress_bar()
    spread = spread_over_gpus(folder, DTYPES[dtype]) if device == ALL else None
    network = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=DTYPES[dtype],
        device_map=spread,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise CollateralError(
            f"{folder}: its tokenizer cannot be loaded ({shorten(reason, 200)}); take a model with a tokenizer of "
            "transformers, as no code of a model is run"
        ) from None
    if device != ALL:
        network.to(torch.device(device))  # type: ignore[arg-type]
    return wrap(network, tokenizer, identity, described_source(folder))
