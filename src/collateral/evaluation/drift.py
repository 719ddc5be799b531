"""How far an edited model's activations and next-token distributions on a fixed text are from the unedited ones."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from collateral.deltas.file_format import read_outline
from collateral.deltas.increment import Increment
from collateral.editing.checkpoint import at_checkpoint
from collateral.editing.prepare.second_moments import cut_windows
from collateral.editing.registry import edited_layers
from collateral.errors import CollateralError
from collateral.io.parquet import write_table
from collateral.models.hooks import capture
from collateral.models.language_model import LanguageModel

log = logging.getLogger(__name__)

SCHEMA = {"layer": pl.Int32, "statistic": pl.String, "value": pl.Float64}
_ROWS = 8  # sequences of one pass: fixed, as the last digits depend on it
_READS = 128  # positions whose distributions are held at once
Hidden = Float[Tensor, "positions d"]
Row = tuple[int | None, str, float]


@dataclass(frozen=True)
class Activations:
    """Activations of a model on a text, position by position, in main memory.

    Attributes:
        streams: layer → the residual stream that leaves it.
        final: the last hidden states after the final norm, from which the next token is read.
    """

    streams: Mapping[int, Hidden]
    final: Hidden


def measure_drift(
    model: LanguageModel,
    deltas: Sequence[Path],
    texts: Iterable[str],
    tokens: int,
    sequence_length: int,
    path: Path,
    state: Path | None = None,
) -> None:
    """Write how far a checkpoint's activations and predictions on a text are from the unedited model's.

    Of the residual stream that leaves each edited layer, and the last layer

    activation_norm_ratio   mean ‖h'‖ / mean ‖h‖, h' of the edited model
    hidden_drift_cosine     mean of 1 - cos(h, h')
    hidden_drift_cka        1 - linear CKA(H, H')                     (Kornblith et al. 2019, arXiv 1905.00414)

    and of the whole model (no layer)

    kl_next_token           mean of KL(p ‖ p'), unedited first; unit: nats

    An editor that changes nothing has a ratio of exactly 1 and drifts of exactly 0. Values of a collapsed model may
    be infinite or not a number, and are written as that. The model is left at the checkpoint.

    Args:
        model: the unedited model.
        deltas: the chain's files, in order.
        texts: plain text, a document each; cut as for second moments.
        tokens: of the text, rounded up to whole sequences.
        sequence_length: tokens of one sequence.
        path: written: one row a number.
        state: the last checkpoint's state, where the editor is an adapter.

    Raises:
        CollateralError: a file is damaged, or the text is shorter than one sequence.
    """
    layers = find_measured_layers(model, [read_outline(delta) for delta in deltas])
    batches = list(cut_windows(model, texts, tokens, sequence_length, _ROWS))
    available = sum(batch.numel() for batch in batches)
    if not available:
        raise CollateralError(
            f"the text of the drift has fewer than drift.sequence_length = {sequence_length} tokens; name a longer "
            "text in moments.text, or lower the length"
        )
    if available < tokens:
        log.warning("drift: the text has %d tokens of the %d wanted", available, tokens)
    before = collect_activations(model, batches, layers)
    with at_checkpoint(model, deltas, state):
        after = collect_activations(model, batches, layers)
    rows = compute_drift(model, before, after)
    write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), path)


def find_measured_layers(model: LanguageModel, chain: Sequence[Increment]) -> list[int]:
    """Return the layers that a chain's editor names or its files touch, and the last one.

    Raises:
        CollateralError: a touched parameter lies in no decoder layer.
    """
    recipe = chain[-1].metadata["editor"]
    named = edited_layers(recipe["method"], recipe["settings"])
    touched = {_layer_of(model, name) for increment in chain for name in increment.metadata["parameters"]}
    return sorted({*named, *touched, model.layers - 1})


def _layer_of(model: LanguageModel, name: str) -> int:
    for layer in range(model.layers):
        if name.startswith(model.architecture.block.format(layer) + "."):
            return layer
    raise CollateralError(
        f"the edited parameter {name} lies in none of the {model.layers} decoder layers; drift is measured on what "
        "leaves them and takes the output projection as unedited; leave the editor out of the study"
    )


def collect_activations(
    model: LanguageModel, batches: Sequence[Int[Tensor, "rows tokens"]], layers: Sequence[int]
) -> Activations:
    """Return what the model, as it is, does on batches of sequences, without each sequence's first position."""
    # ASSUME: at a sequence's first token models put an attention sink, whose norm is many times that of any other
    # position (7 times on SmolLM2-135M, far more on large models), and which has no context to be judged by: it
    # would decide mean norms and CKA alone, and is left out.
    streams: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    final: list[Tensor] = []
    for ids in tqdm(batches, desc="drift", unit="batch", disable=None):
        with torch.no_grad(), ExitStack() as hooks:
            seen = {layer: hooks.enter_context(capture(model.block(layer))) for layer in layers}
            output = model.network.base_model(input_ids=ids.to(model.device), use_cache=False)
        for layer in layers:
            streams[layer].append(_positions(seen[layer]["output"]))
        final.append(_positions(output.last_hidden_state))
    return Activations({layer: torch.cat(parts) for layer, parts in streams.items()}, torch.cat(final))


def _positions(hidden: Float[Tensor, "rows tokens d"]) -> Hidden:
    return hidden[:, 1:].flatten(0, 1).cpu()


def compute_drift(model: LanguageModel, before: Activations, after: Activations) -> list[Row]:
    """Return (layer, statistic, value) rows; the layer is None for the output distribution."""
    rows: list[Row] = []
    for layer, unedited in before.streams.items():
        old, new = unedited.double(), after.streams[layer].double()
        rows += [
            (layer, "activation_norm_ratio", norm_ratio(old, new)),
            (layer, "hidden_drift_cosine", cosine_drift(old, new)),
            (layer, "hidden_drift_cka", cka_drift(old, new)),
        ]
    return [*rows, (None, "kl_next_token", next_token_divergence(model, before.final, after.final))]


def norm_ratio(before: Hidden, after: Hidden) -> float:
    """Return mean ‖h'‖ / mean ‖h‖."""
    return float(after.norm(dim=1).mean() / before.norm(dim=1).mean())


def cosine_drift(before: Hidden, after: Hidden) -> float:
    """Return the mean of 1 - cos(h, h'), as half the squared distance of directions: exact where they are equal."""
    directions = [nn.functional.normalize(hidden, dim=1) for hidden in (before, after)]
    return float((directions[0] - directions[1]).square().sum(dim=1).mean() / 2)


def cka_drift(before: Hidden, after: Hidden) -> float:
    """Return 1 - linear CKA; turning or scaling all features alike is no drift.

    CKA(H, H') = ‖H'ᵀH‖_F² / (‖HᵀH‖_F ‖H'ᵀH'‖_F), columns centred (Kornblith et al. 2019, section 3); the same from
    the Gram matrices of positions, tr(K K') / (‖K‖_F ‖K'‖_F) with K = H Hᵀ, where these are smaller.
    """
    if torch.equal(before, after):
        return 0.0  # to the last bit, whatever order the products are summed in
    old, new = before - before.mean(dim=0), after - after.mean(dim=0)
    if len(old) <= old.shape[1]:
        gram, new_gram = old @ old.T, new @ new.T
        shared, sizes = (gram * new_gram).sum(), gram.norm() * new_gram.norm()
    else:
        shared, sizes = (new.T @ old).square().sum(), (old.T @ old).norm() * (new.T @ new).norm()
    return float((1 - shared / sizes).clamp_min(0.0))


def next_token_divergence(model: LanguageModel, before: Hidden, after: Hidden) -> float:
    """Return the mean KL divergence of the next-token distributions, KL(p ‖ p'), in nats.

    Args:
        model: its output projection, which no editor changes, reads the tokens.
        before: last hidden states of the unedited model.
        after: of the edited one.
    """
    head: nn.Module = model.network.get_output_embeddings()
    total = 0.0
    for old, new in zip(before.split(_READS), after.split(_READS), strict=True):
        with torch.no_grad():
            log_p, log_q = (
                torch.log_softmax(head(part.to(model.device)).double(), dim=-1) for part in (old, new)
            )
            total += float(divergences(log_p, log_q).sum())
    return total / len(before)


def divergences(
    log_p: Float[Tensor, "positions vocabulary"], log_q: Float[Tensor, "positions vocabulary"]
) -> Float[Tensor, " positions"]:
    """Return KL(p ‖ q) = Σ p (log p - log q) of each position; a token with p = 0 adds nothing."""
    terms = log_p.exp() * (log_p - log_q)
    divergence: Tensor = terms.masked_fill(log_p == -torch.inf, 0.0).sum(dim=-1)
    return divergence
