"""Making a model whose weights have no numbers yet, without torch's detour by sympy: half a second of every job.

transformers makes a model on torch's `meta` device, where tensors have sizes only, and then loads its weights. Torch
imports sympy as soon as a number is written or computed there. What is written there is lost anyway, and the sizes of
what is computed (the angles of rotary embeddings) are those of the same computation in memory. All else goes its way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WRITING = frozenset(
    {
        "constant_",
        "fill_",
        "kaiming_uniform_",
        "normal_",
        "ones_",
        "trunc_normal_",
        "uniform_",
        "zero_",
        "zeros_",
    }
)
"""Functions of `torch.nn.init`, and methods of tensors, that write every number of their first argument."""
COMPUTING = frozenset({"__rdiv__", "__rpow__", "add", "div", "mul", "pow", "reciprocal", "sub"})
"""Operators, by the names that torch gives them; their result is a new tensor."""
SMALL = 2**16  # numbers; what is larger is not computed in memory for its size


class Unfilled(TorchFunctionMode):
    """Within, torch finds the same tensors on `meta` in a shorter way."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what the function returns."""
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in WRITING:
            written = args[0] if args else options.get("tensor")
            if isinstance(written, Tensor) and written.is_meta:
                return written
        elif func is torch.arange and str(options.get("device")) == "meta":
            return _sizes(func(*args, **{**options, "device": "cpu"}))
        elif func is torch.empty_like and options.keys() <= {"device"} and _contiguous(args):
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=options.get("device", "meta"))
        elif name in COMPUTING and not options and _small(args):
            return _sizes(func(*map(_in_memory, args)))
        return func(*args, **options)


def _contiguous(args: Sequence[Any]) -> bool:
    return len(args) == 1 and args[0].is_meta and args[0].is_contiguous()


def _small(args: Sequence[Any]) -> bool:
    tensors = [one for one in args if isinstance(one, Tensor)]
    return all(one.is_meta and one.numel() <= SMALL and not one.requires_grad for one in tensors)


def _in_memory(value: Any) -> Any:
    return _like(value, "cpu").fill_(1) if isinstance(value, Tensor) else value


def _sizes(found: Any) -> Any:
    return _like(found, "meta") if isinstance(found, Tensor) else found


def _like(tensor: Tensor, device: str) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
