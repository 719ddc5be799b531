"""GPUs that are not there: tensors in main memory that say they lie on a GPU, and operations that mind it.

Every call of torch's Python interface is seen. What it returns lies where its arguments do, or where it was told
to go; a call with arguments on different GPUs, or on a GPU and in main memory, is refused as CUDA refuses it.
The numbers are the processor's. What this cannot show: kernels, streams, memory, and transfers within C++.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import modeling_utils

from collateral.models import device_map

CPU = torch.device("cpu")
_DEVICE, _IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__
_SET_DATA, _GRAD = torch.Tensor.data.__set__, torch.Tensor.grad.__get__
_INDEXED = {"__getitem__", "__setitem__"}


def place_of(tensor: Tensor) -> torch.device:
    """Return where a tensor says that it lies."""
    return getattr(tensor, "gpu", CPU)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _lying(value: Any, place: torch.device) -> Any:
    for one in _tensors(value):
        one.gpu = place
    return value


def _device(value: Any) -> torch.device:
    """Return a device by number, as a machine with GPUs understands it, or by name."""
    return torch.device("cuda", value) if isinstance(value, int) else torch.device(value)


class VirtualGpus(TorchFunctionMode):
    """Within, tensors have places, and operations mind them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is torch.device:
            return _device(args[0]) if len(args) == 1 else func(*args, **kwargs)
        if func == _DEVICE:
            return place_of(args[0])
        if func == _IS_CUDA:
            return place_of(args[0]).type == "cuda"
        if func == _SET_DATA:
            _lying(args[0], place_of(args[1]))
            return func(*args)
        if func is torch.Tensor.to or func is torch.Tensor.cpu:
            return self._moved(func, args, kwargs)
        if func is torch.autograd.grad:
            found = func(*args, **kwargs)
            inputs = args[1] if isinstance(args[1], list | tuple) else [args[1]]
            return tuple(_lying(one, place_of(to)) for one, to in zip(found, inputs, strict=True))
        if func is torch.Tensor.numpy and place_of(args[0]) != CPU:
            raise TypeError("can't convert a tensor on a GPU to numpy")
        wanted = kwargs.pop("device", None)
        if func in (torch.Tensor.copy_, torch._has_compatible_shallow_copy_type) or func == _GRAD:
            place = place_of(args[0])
        else:
            place = self._common(name, args, kwargs)
        if wanted is not None:
            place = _device(wanted)
            if kwargs.get("generator") is not None and place != CPU:
                raise RuntimeError(f"{name}: a generator of the processor cannot draw on {place}")
        return _lying(func(*args, **kwargs), place)

    @staticmethod
    def _common(name: str, args: Any, kwargs: Any) -> torch.device:
        """Return the one place of a call's tensors; a number may come from main memory, and so may an index."""
        if name in _INDEXED:
            own, index = place_of(args[0]), list(_tensors(args[1]))
            foreign = [one for one in index if place_of(one) not in (own, CPU)]
            value = (
                list(_tensors(args[2:])) if index else []
            )  # without index tensors it is a copy, which may cross
            foreign += [one for one in value if place_of(one) != own and one.ndim]
            places = {own, *map(place_of, foreign)}
        else:
            given = [*_tensors(args), *_tensors(kwargs)]
            counted = [one for one in given if one.ndim or place_of(one) != CPU] or given
            places = {place_of(one) for one in counted}
        if len(places) > 1:
            raise RuntimeError(f"{name}: tensors on different devices: {', '.join(sorted(map(str, places)))}")
        return places.pop() if places else CPU

    @staticmethod
    def _moved(func: Any, args: Any, kwargs: Any) -> Tensor:
        """Return a tensor elsewhere: a copy if it is elsewhere, as between real devices."""
        tensor, *rest = args
        wanted = CPU if func is torch.Tensor.cpu else kwargs.pop("device", None)
        kept = []
        for one in rest:
            if isinstance(one, Tensor):
                wanted = place_of(one)
                kept.append(one.dtype)
            elif isinstance(one, str | int | torch.device) and not isinstance(one, bool):
                wanted = _device(one)
            elif isinstance(one, torch.dtype):
                kept.append(one)
        place = place_of(tensor) if wanted is None else _device(wanted)
        moved = torch.Tensor.to(tensor, *kept, **kwargs) if kept or kwargs else tensor
        if moved is tensor and place == place_of(tensor):
            return tensor
        return _lying(moved.clone() if moved is tensor else moved, place)


def put_on_gpus(network: Any, places: dict[str, int]) -> Any:
    """Return a network that accelerate has dispatched over virtual GPUs; call it within `VirtualGpus`."""
    marked(network, places)
    if len(set(places.values())) > 1:
        dispatch_model(network, places, skip_keys=network._skip_keys_device_placement)
    return marked(network, places)  # accelerate may have made new parameter objects, which forget their place


def marked(network: Any, places: dict[str, int]) -> Any:
    """Return a network whose weights say that they lie where a map has their modules."""
    for parts in (network.named_parameters(), network.named_buffers()):
        for name, tensor in parts:
            found = [module for module in places if f"{name}.".startswith(f"{module}." if module else "")]
            tensor.gpu = torch.device("cuda", places[max(found, key=len)])
    return network


def let_models_load(monkeypatch: pytest.MonkeyPatch, free: list[int]) -> None:
    """Let `load_model` find virtual GPUs with so much free memory, and transformers load onto them."""
    dispatch = modeling_utils.accelerate_dispatch

    def dispatched(network: Any, quantizer: Any, places: dict[str, int], *rest: Any) -> None:
        dispatch(marked(network, places), quantizer, places, *rest)

    monkeypatch.setattr(device_map, "measure_free_memory", lambda: free)
    monkeypatch.setattr(modeling_utils, "accelerate_dispatch", dispatched)
    monkeypatch.setattr(modeling_utils, "caching_allocator_warmup", lambda *_: None)  # it asks the driver
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the loader's threads would not see the places
