"""Which GPU holds which layers of a model that fits no single one; main memory and disk hold nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from collateral.errors import CollateralError
from collateral.io.log_levels import NOTE

log = logging.getLogger(__name__)

ALL = "cuda:all"  # the device of a model that is spread over all GPUs that the job sees
ROOM = 0.1  # ASSUME: share of a GPU's free memory that weights leave to activations, at least


def spread_over_gpus(folder: Path, dtype: torch.dtype) -> dict[str, int]:
    """Return module → GPU, for a model's folder and the GPUs that this process sees.

    Raises:
        CollateralError: there is no GPU, or the model does not fit them all.
    """
    free = measure_free_memory()
    if not free:
        raise CollateralError(
            f"{folder}: the device is {ALL}, but this process sees no CUDA GPU; run the job where there are GPUs, "
            "or set models.*.device to cpu"
        )
    network = build_skeleton(folder, dtype)
    device_map = balance_layers(network, free)
    if device_map is None:
        whole = sum(size for _, size in iterate_parts(network))
        raise CollateralError(
            f"{folder}: the weights take {whole / 1e9:.1f} GB as {str(dtype).removeprefix('torch.')}, and whole "
            f"layers of them do not fit {100 * (1 - ROOM):.0f} % of what is free on the {len(free)} GPU(s): "
            f"{', '.join(f'{size / 1e9:.1f}' for size in free)} GB; raise models.*.gpus, or take a smaller dtype "
            "(nothing is moved to main memory or disk: edits need their matrices in reach)"
        )
    held = ", ".join(f"{size / 1e9:.1f}" for size in sum_weights(network, device_map))
    log.log(NOTE, "the model's layers are spread over %d GPU(s), weights on each: %s GB", len(free), held)
    return device_map


def measure_free_memory() -> list[int]:
    """Return the bytes that are free on each GPU that this process sees."""
    return [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]


def build_skeleton(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return a folder's model without its numbers: sizes only."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    network.tie_weights()
    return network


def balance_layers(network: PreTrainedModel, free: Sequence[int]) -> dict[str, int] | None:
    """Return module → GPU such that the fullest GPU is as empty as can be; None where no map fits.

    Layers are whole and in order, so that a pass crosses from each GPU to the next once. What is tied lies
    together, with the embedding; so does what has no weights.

    Args:
        network: may be a skeleton.
        free: bytes on each GPU.
    """
    groups = list(iterate_parts(network))
    gpus = balance_sizes([size for _, size in groups], free)
    if gpus is None:
        return None
    return {name: gpu for (names, _), gpu in zip(groups, gpus, strict=True) for name in names}


def balance_sizes(sizes: Sequence[int], free: Sequence[int]) -> list[int] | None:
    """Return the GPU of each part, in order, such that the largest share of a GPU that is filled is smallest.

    None where a GPU would be filled beyond 1 - ROOM.

    Args:
        sizes: of the parts; unit: bytes.
        free: on each GPU; unit: bytes.
    """
    # accelerate's infer_auto_device_map keeps room on the first GPU for a layer that it may have to load back from
    # main memory: it finds no map for models that fit, and where it finds one the first GPU holds little.
    low, high = 0.0, 1.0 - ROOM
    gpus = _fill_in_turn(sizes, [high * size for size in free])
    for _ in range(40 if gpus else 0):
        middle = (low + high) / 2
        tighter = _fill_in_turn(sizes, [middle * size for size in free])
        gpus, low, high = (tighter, low, middle) if tighter else (gpus, middle, high)
    return gpus


def _fill_in_turn(sizes: Sequence[int], limits: Sequence[float]) -> list[int] | None:
    """Return each part's GPU when GPUs are filled in turn; None where the last one overflows."""
    gpus, gpu, held = [], 0, 0
    for size in sizes:
        while held + size > limits[gpu]:
            gpu, held = gpu + 1, 0
            if gpu == len(limits):
                return None
        held += size
        gpus.append(gpu)
    return gpus


def iterate_parts(network: PreTrainedModel) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (module names, bytes) of what must lie together, in the order of a pass: entry, layers, exit."""
    whole = set(network._no_split_modules or ())
    counted: set[int] = set()
    entry: list[str] = []
    begun, size = False, 0
    rest: list[tuple[tuple[str, ...], int]] = []
    for name, module in _iterate_modules(network, "", whole):
        tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        new = [tensor for key, tensor in tensors.items() if key not in counted]
        module_size = sum(tensor.numel() * tensor.element_size() for tensor in new)
        weights = {id(weight) for weight in module.parameters()}
        begun = begun or type(module).__name__ in whole
        if not begun or weights <= counted:  # the embeddings; what is tied to them; what has no weights
            entry.append(name)
            size += module_size
        else:
            rest.append(((name,), module_size))
        counted |= tensors.keys()
    yield tuple(entry), size
    yield from rest


def _iterate_modules(module: nn.Module, prefix: str, whole: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are placed as one: decoder layers, and what lies beside them."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child).__name__ not in whole and any(
            type(part).__name__ in whole for part in child.modules()
        ):
            yield from _iterate_modules(child, f"{path}.", whole)
        else:
            yield path, child


def sum_weights(network: PreTrainedModel, device_map: Mapping[str, int]) -> list[int]:
    """Return the bytes of weights on each GPU."""
    held = [0] * (max(device_map.values()) + 1)
    for names, size in iterate_parts(network):
        held[device_map[names[0]]] += size
    return held
