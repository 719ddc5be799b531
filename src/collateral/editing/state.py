"""What a method carries from one operation to the next, and its file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collateral.errors import CollateralError
from collateral.models.spill import Scratch, Stored
from collateral.models.tensor_file import read_tensors, stored_tensors, write_tensors

STATE = "collateral-state/1"  # format of a file of an editor's state
_KIND = "an editor's state"


class Carried(MutableMapping[str, Tensor]):
    """A method's state: named tensors, which lie in a file where there is one for them.

    A copy (`Carried(other)`) has the same tensors, and what is then put into one of the two is not in the other: an
    operation that fails leaves the state as it was, and none is in memory twice. With a scratch file, a tensor in
    main memory is written into it, and each look reads it anew; one on a card stays there.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor | Stored] | None = None,
        scratch: Scratch | None = None,
    ):
        """Take over what another state has, or what is given, without putting it anywhere else."""
        self._parts: dict[str, Tensor | Stored] = {}
        self._scratch = scratch
        if isinstance(values, Carried):
            self._parts |= values._parts
            self._scratch = scratch or values._scratch
        elif values is not None:
            self._parts |= values

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor; it may be the state's own, and is not to be written into."""
        part = self._parts[name]
        return part.read() if isinstance(part, Stored) else part

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Put a tensor in; it is not to be written into from now on."""
        aside = self._scratch is not None and value.device.type == "cpu"
        self._parts[name] = self._scratch.keep(value) if self._scratch and aside else value

    def __delitem__(self, name: str) -> None:
        """Forget a tensor."""
        del self._parts[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._parts)

    def own(self, name: str, device: torch.device) -> Tensor:
        """Return a contiguous tensor on a device that the caller may write into: the state's stays as it was."""
        part = self._parts[name]
        if isinstance(part, Stored):
            return part.read().to(device)
        # a copy in memory of its own: matrix products round by alignment
        return part.to(device, copy=True, memory_format=torch.contiguous_format)

    def without(self, prefix: str) -> "Carried":
        """Return the state without the names that begin with a prefix."""
        kept = Carried(self)
        for name in self:
            if name.startswith(prefix):
                del kept[name]
        return kept

    @property
    def parts(self) -> Mapping[str, Tensor | Stored]:
        """The tensors, unread where they are in a file."""
        return self._parts


def write_state(state: Mapping[str, Tensor], path: Path, edits: int, settings_sha256: str) -> None:
    """Write a method's state, possibly empty, with the number of edits and the editor's settings."""
    about = {"format": STATE, "edits": edits, "settings_sha256": settings_sha256}
    write_tensors(Carried(state).parts, path, about)


def read_state(path: Path, edits: int, settings_sha256: str) -> dict[str, Tensor]:
    """Return the state after `edits` edits of the editor with these settings.

    Raises:
        CollateralError: not readable, or the state of another point or editor.
    """
    state, about = read_tensors(path, _KIND)
    _check(path, about, edits, settings_sha256)
    return state


def open_state(path: Path, edits: int, settings_sha256: str, scratch: Scratch) -> Carried:
    """Return the same state in its file, whole and checked, of which nothing is in memory; what follows it is aside.

    Args:
        path: the file.
        edits: number of edits.
        settings_sha256: of the editor.
        scratch: where the states after it lie.

    Raises:
        CollateralError: not readable, or the state of another point or editor.
    """
    state, about = stored_tensors(path, _KIND)
    _check(path, about, edits, settings_sha256)
    return Carried(state, scratch)


def _check(path: Path, about: Mapping[str, object], edits: int, settings_sha256: str) -> None:
    if about.get("edits") != edits or about.get("settings_sha256") != settings_sha256:
        raise CollateralError(
            f"{path}: the state of another editor or number of edits; delete {path.parent.parent} and run again"
        )


def recipe_sha256(recipe: Mapping[str, Any]) -> str:
    """Return the hash by which a state knows its editor: of method, settings, regularizer and batch size."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
