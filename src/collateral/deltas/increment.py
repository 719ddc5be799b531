"""Weight increments in memory: W_0 + a chain of them is the live model, bit for bit.

Values are one width up (float64 for float32 weights, float32 for half precision), so that the difference of
two weights is exact and W_0 + sum of increments gives the live weights bit for bit, in any order. The few
elements whose difference does not fit are exceptions, with their bits before and after. Where all updates were
of low rank, a file may hold them as factors instead, and its operations are done again, in order.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from collateral.deltas.operations import Operation, apply_operations
from collateral.errors import CollateralError

Elements = tuple[Tensor | slice, Tensor]
WIDER = {"float32": torch.float64, "bfloat16": torch.float32, "float16": torch.float32}


Part = tuple[str, Elements | list[Operation]]  # a parameter, and some of its elements or all its operations


@dataclass(frozen=True)
class Increment:
    """One checkpoint's file, read and verified against itself.

    Attributes:
        path: where it was read.
        metadata: everything but the rows: `base`, `base_sha256`, `dtype`, `mode` (additive: on top of the previous
            checkpoint; replacing: against W_0), `from_edits`, `to_edits`, `editor` and, per touched
            parameter, `shape`, `before`, `after` (sha256 of the tensor's bytes) and `exceptions`.
            A file of factors (`encoding`) has per parameter `operations` instead, see `factor_encoding`.
        elements: per parameter, (flat index in storage order, value); a slice of indices where none is left out.
        operations: per parameter, its updates in order; of a file of factors.
    """

    path: Path
    metadata: dict[str, Any]
    elements: dict[str, Elements]
    operations: dict[str, list[Operation]] = field(default_factory=dict)


def tensor_sha256(tensor: Shaped[Tensor, "..."]) -> str:
    """Return the sha256 of a tensor's bytes in storage order."""
    raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()


def rebuild(
    base: Mapping[str, Tensor],
    increments: Sequence[Increment],
    *,
    check_base: bool = True,
    parts: Callable[[Increment], Iterable[Part]] | None = None,
) -> dict[str, Tensor]:
    """Return every touched parameter after a chain of increments, verified by hash.

    Elements are added to W_0 one width up, and the sum is cast once; operations in factors are done again one after
    another. A replacing increment makes the earlier ones void.

    Args:
        base: W_0 of at least the touched parameters, as stored.
        increments: the chain, from the first checkpoint to the wanted one, in any order.
        check_base: verify that the chain starts at W_0 and has no gap.
        parts: reads what changed when an increment's turn comes; None: the increments hold it.

    Raises:
        CollateralError: a gap in the chain, another base model, or a result with another hash.
    """
    chain = sorted(increments, key=lambda increment: int(increment.metadata["to_edits"]))
    if check_base:
        check_chain(base, chain)
    start = max(
        (i for i, increment in enumerate(chain) if increment.metadata["mode"] == "replacing"), default=0
    )
    last = {name: increment for increment in chain[start:] for name in increment.metadata["parameters"]}
    sums = {name: widen(base[name]) for name in sorted(last)}
    for increment in chain[start:]:
        for name, change in (parts or iterate_parts)(increment):
            add_change(sums[name], base[name], change)
        for name, about in increment.metadata["parameters"].items():
            put_exceptions(sums[name], about)
    live = {}
    for name in sorted(last):
        live[name] = sums.pop(name).to(base[name].dtype).reshape(base[name].shape)
        check_rebuilt(live[name], name, last[name])
    return live


def iterate_parts(increment: Increment) -> Iterator[Part]:
    """Yield what an increment says of each parameter, all of it being in memory."""
    yield from increment.elements.items()
    yield from increment.operations.items()


def widen(base: Tensor) -> Tensor:
    """Return a copy of a parameter, flat and one width up."""
    wider = WIDER[str(base.dtype).removeprefix("torch.")]
    return base.detach().cpu().flatten().to(wider, copy=True)


def add_change(total: Tensor, base: Tensor, change: Elements | Sequence[Operation]) -> None:
    """Add to a parameter some elements, or all its operations, in place.

    Args:
        total: the parameter, flat and one width up.
        base: of its shape and type.
        change: what is added.
    """
    if isinstance(change, tuple):
        index, value = change
        total[index] += value
    else:
        total.copy_(apply_operations(total.to(base.dtype).reshape(base.shape), change).flatten())


def put_exceptions(total: Tensor, about: Mapping[str, Any]) -> None:
    """Put the elements that a checkpoint could not state as differences into a parameter, which has all others."""
    for exception in about["exceptions"]:
        total[exception["index"]] = float.fromhex(exception["after"])


def check_rebuilt(live: Tensor, name: str, last: Increment) -> None:
    """Check a rebuilt parameter against the sha256 in the last file that touched it.

    Raises:
        CollateralError: they differ.
    """
    if tensor_sha256(live) != last.metadata["parameters"][name]["after"]:
        raise CollateralError(
            f"{last.path}: the rebuilt {name} has another sha256 than the file says; its chain does not belong "
            f"to this base model or was altered: delete the folder {last.path.parent.parent} and run again"
        )


def check_chain(base: Mapping[str, Tensor], chain: Sequence[Increment]) -> None:
    """Check that a chain begins at W_0 and that each increment continues the one before.

    Raises:
        CollateralError: a gap in the chain, or another base model.
    """
    edits = 0
    expected: dict[str, str] = {}
    for increment in chain:
        start = 0 if increment.metadata["mode"] == "replacing" else edits
        if int(increment.metadata["from_edits"]) != start:
            raise CollateralError(
                f"{increment.path}: it continues from {increment.metadata['from_edits']} edits, but the chain before "
                f"it ends at {edits}; a checkpoint is missing: run the workflow again"
            )
        for name, about in increment.metadata["parameters"].items():
            if name not in base or list(base[name].shape) != about["shape"]:
                raise CollateralError(
                    f"{increment.path}: made for another model: it has no {name} {about['shape']}; delete "
                    f"{increment.path.parent.parent} and run again"
                )
            if name not in expected or increment.metadata["mode"] == "replacing":
                expected[name] = tensor_sha256(base[name])
            if about["before"] != expected[name]:
                raise CollateralError(
                    f"{increment.path}: made on other weights of {name} (sha256 {about['before'][:12]}…, here "
                    f"{expected[name][:12]}…); delete {increment.path.parent.parent} and run again"
                )
            expected[name] = about["after"]
        edits = int(increment.metadata["to_edits"])
