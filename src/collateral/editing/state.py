"""What a method carries from one operation to the next, and its file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collateral.errors import CollateralError
from collateral.models.tensor_file import read_tensors, write_tensors

STATE = "collateral-state/1"  # format of a file of an editor's state


def copy_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a contiguous copy on a device that the caller may write into.

    It lies in memory of its own, since matrix products round by alignment.
    """
    return tensor.to(device, copy=True, memory_format=torch.contiguous_format)


def write_state(state: Mapping[str, Tensor], path: Path, edits: int, settings_sha256: str) -> None:
    """Write a method's state, possibly empty, with the number of edits and the editor's settings."""
    write_tensors(state, path, {"format": STATE, "edits": edits, "settings_sha256": settings_sha256})


def read_state(path: Path, edits: int, settings_sha256: str) -> dict[str, Tensor]:
    """Return the state after `edits` edits of the editor with these settings.

    Raises:
        CollateralError: not readable, or the state of another point or editor.
    """
    state, about = read_tensors(path, "an editor's state")
    if about.get("edits") != edits or about.get("settings_sha256") != settings_sha256:
        raise CollateralError(
            f"{path}: the state of another editor or number of edits; delete {path.parent.parent} and run again"
        )
    return state


def recipe_sha256(recipe: Mapping[str, Any]) -> str:
    """Return the hash by which a state knows its editor: of method, settings, regularizer and batch size."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
