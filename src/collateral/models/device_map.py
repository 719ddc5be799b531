"""Which card holds which part of a model that fits no single one. Whole layers; main memory and disk hold nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from collateral.errors import CollateralError
from collateral.io.log_levels import NOTE

log = logging.getLogger(__name__)

ALL = "cuda:all"  # the device of a model that is spread over all cards that the job sees
ROOM = 0.1  # ASSUME: share of a card's free memory that weights leave to activations, at least


def spread_over_cards(folder: Path, dtype: torch.dtype) -> dict[str, int]:
    """Return module → card, for a model's folder and the cards that this process sees.

    Raises:
        CollateralError: there is no card, or the model does not fit them all.
    """
    free = free_memory()
    if not free:
        raise CollateralError(
            f"{folder}: the device is {ALL}, but this process sees no CUDA card; run the job where there are cards, "
            "or set models.*.device to cpu"
        )
    network = skeleton(folder, dtype)
    places = balanced(network, free)
    if places is None:
        whole = sum(size for _, size in parts(network))
        raise CollateralError(
            f"{folder}: the weights take {whole / 1e9:.1f} GB as {str(dtype).removeprefix('torch.')}, and whole "
            f"layers of them do not fit {100 * (1 - ROOM):.0f} % of what is free on the {len(free)} card(s): "
            f"{', '.join(f'{one / 1e9:.1f}' for one in free)} GB; raise models.*.gpus, or take a smaller dtype "
            "(nothing is moved to main memory or disk: edits need their matrices in reach)"
        )
    held = ", ".join(f"{size / 1e9:.1f}" for size in weights_on_cards(network, places))
    log.log(NOTE, "the model's layers are spread over %d card(s), weights on each: %s GB", len(free), held)
    return places


def free_memory() -> list[int]:
    """Return the bytes that are free on each card that this process sees."""
    return [torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count())]


def skeleton(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return a folder's model without its numbers: sizes only."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    network.tie_weights()
    return network


def balanced(network: PreTrainedModel, free: Sequence[int]) -> dict[str, int] | None:
    """Return module → card such that the fullest card is as empty as can be; None where no map fits.

    Layers are whole and in order, so that a pass crosses from each card to the next once. What is tied lies
    together, with the embedding; so does what has no weights.

    Args:
        network: may be a skeleton.
        free: bytes on each card.
    """
    found = list(parts(network))
    cards = evenly([size for _, size in found], free)
    if cards is None:
        return None
    return {name: card for (names, _), card in zip(found, cards, strict=True) for name in names}


def evenly(sizes: Sequence[int], free: Sequence[int]) -> list[int] | None:
    """Return the card of each part, in order, such that the largest share of a card that is filled is smallest.

    None where a card would be filled beyond 1 - ROOM.

    Args:
        sizes: of the parts; unit: bytes.
        free: on each card; unit: bytes.
    """
    # accelerate's infer_auto_device_map keeps room on the first card for a layer that it may have to bring back from
    # main memory: it finds no map for models that fit, and where it finds one the first card holds little.
    low, high = 0.0, 1.0 - ROOM
    cards = _filled(sizes, [high * one for one in free])
    for _ in range(40 if cards else 0):
        middle = (low + high) / 2
        tighter = _filled(sizes, [middle * one for one in free])
        cards, low, high = (tighter, low, middle) if tighter else (cards, middle, high)
    return cards


def _filled(sizes: Sequence[int], limits: Sequence[float]) -> list[int] | None:
    """Return each part's card when cards are filled in turn; None where the last one overflows."""
    cards, card, held = [], 0, 0
    for size in sizes:
        while held + size > limits[card]:
            card, held = card + 1, 0
            if card == len(limits):
                return None
        held += size
        cards.append(card)
    return cards


def parts(network: PreTrainedModel) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (module names, bytes) of what must lie together, in the order of a pass: entry, layers, exit."""
    whole = set(network._no_split_modules or ())
    counted: set[int] = set()
    entry: list[str] = []
    begun, size = False, 0
    rest: list[tuple[tuple[str, ...], int]] = []
    for name, module in _divided(network, "", whole):
        tensors = {id(one): one for one in (*module.parameters(), *module.buffers())}
        own = sum(one.numel() * one.element_size() for key, one in tensors.items() if key not in counted)
        weights = {id(one) for one in module.parameters()}
        begun = begun or type(module).__name__ in whole
        if not begun or weights <= counted:  # the embeddings; what is tied to them; what has no weights
            entry.append(name)
            size += own
        else:
            rest.append(((name,), own))
        counted |= tensors.keys()
    yield tuple(entry), size
    yield from rest


def _divided(module: nn.Module, prefix: str, whole: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are placed as one: decoder layers, and what lies beside them."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child).__name__ not in whole and any(type(one).__name__ in whole for one in child.modules()):
            yield from _divided(child, f"{path}.", whole)
        else:
            yield path, child


def weights_on_cards(network: PreTrainedModel, places: Mapping[str, int]) -> list[int]:
    """Return the bytes of weights on each card."""
    held = [0] * (max(places.values()) + 1)
    for names, size in parts(network):
        held[places[names[0]]] += size
    return held
