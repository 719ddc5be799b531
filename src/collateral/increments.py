"""Weight increments in memory: W_0 + a chain of them is the live model, bit for bit.

Values are one width up (float64 for float32 weights, float32 for half precision), so that the difference of
two weights is exact and W_0 + sum of increments gives the live weights bit for bit, in any order. The few
elements whose difference does not fit are exceptions, with their bits before and after.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from collateral.errors import CollateralError

WIDER = {"float32": torch.float64, "bfloat16": torch.float32, "float16": torch.float32}


@dataclass(frozen=True)
class Increment:
    """One checkpoint's file, read and verified against itself.

    Attributes:
        path: where it was read.
        metadata: everything but the rows: `base`, `base_sha256`, `dtype`, `mode` (additive: on top of the previous
            checkpoint; replacing: against W_0), `from_edits`, `to_edits`, `editor` and, per touched
            parameter, `shape`, `before`, `after` (sha256 of the tensor's bytes) and `exceptions`.
        elements: per parameter, (flat index in storage order, value).
    """

    path: Path
    metadata: dict[str, Any]
    elements: dict[str, tuple[Tensor, Tensor]]


def tensor_sha256(tensor: Shaped[Tensor, "..."]) -> str:
    """Return the sha256 of a tensor's bytes in storage order."""
    raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()


def rebuild(
    base: Mapping[str, Tensor], increments: Sequence[Increment], *, check_base: bool = True
) -> dict[str, Tensor]:
    """Return W_0 + sum of increments for every touched parameter, cast once, verified by hash.

    The order of the increments does not matter. A replacing increment makes the earlier ones void.

    Args:
        base: W_0 of at least the touched parameters, as stored.
        increments: the chain, from the first checkpoint to the wanted one.
        check_base: verify that the chain starts at W_0 and has no gap.

    Raises:
        CollateralError: a gap in the chain, another base model, or a result with another hash.
    """
    chain = sorted(increments, key=lambda one: int(one.metadata["to_edits"]))
    if check_base:
        check_chain(base, chain)
    start = max((i for i, one in enumerate(chain) if one.metadata["mode"] == "replacing"), default=0)
    chain = chain[start:]
    alive = {id(one) for one in chain}
    live: dict[str, Tensor] = {}
    for name in sorted({name for one in chain for name in one.metadata["parameters"]}):
        total = base[name].detach().cpu().flatten().to(WIDER[str(base[name].dtype).removeprefix("torch.")])
        for one in increments:
            if id(one) in alive and name in one.elements:
                index, value = one.elements[name]
                total[index] += value
        _apply_exceptions(total, name, chain)
        live[name] = total.to(base[name].dtype).reshape(base[name].shape)
        last = next(one for one in reversed(chain) if name in one.metadata["parameters"])
        check_rebuilt(live[name], name, last)
    return live


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


def _apply_exceptions(total: Tensor, name: str, chain: Sequence[Increment]) -> None:
    """Replay, in order, the elements that some increment could not state as a difference."""
    last: dict[int, tuple[int, float]] = {}
    for number, one in enumerate(chain):
        for exception in one.metadata["parameters"].get(name, {}).get("exceptions", ()):
            last[exception["index"]] = (number, float.fromhex(exception["after"]))
    for index, (number, value) in last.items():
        total[index] = value
        for one in chain[number + 1 :]:
            if name in one.elements:
                positions, values = one.elements[name]
                found = int(torch.searchsorted(positions, index))
                if found < len(positions) and int(positions[found]) == index:
                    total[index] += values[found]


def check_chain(base: Mapping[str, Tensor], chain: Sequence[Increment]) -> None:
    """Check that a chain begins at W_0 and that each increment continues the one before.

    Raises:
        CollateralError: a gap in the chain, or another base model.
    """
    edits = 0
    expected: dict[str, str] = {}
    for one in chain:
        start = 0 if one.metadata["mode"] == "replacing" else edits
        if int(one.metadata["from_edits"]) != start:
            raise CollateralError(
                f"{one.path}: it continues from {one.metadata['from_edits']} edits, but the chain before it ends at "
                f"{edits}; a checkpoint is missing: run the workflow again"
            )
        for name, about in one.metadata["parameters"].items():
            if name not in base or list(base[name].shape) != about["shape"]:
                raise CollateralError(
                    f"{one.path}: made for another model: it has no {name} {about['shape']}; delete "
                    f"{one.path.parent.parent} and run again"
                )
            if name not in expected or one.metadata["mode"] == "replacing":
                expected[name] = tensor_sha256(base[name])
            if about["before"] != expected[name]:
                raise CollateralError(
                    f"{one.path}: made on other weights of {name} (sha256 {about['before'][:12]}…, here "
                    f"{expected[name][:12]}…); delete {one.path.parent.parent} and run again"
                )
            expected[name] = about["after"]
        edits = int(one.metadata["to_edits"])
