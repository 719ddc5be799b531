"""A model's folder on disk: its manifest, its identity, and single tensors of it. Needs no transformers."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json, sha256_file, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def verified_manifest(folder: Path) -> tuple[dict[str, str], str]:
    """Return ({file: sha256}, identity of the whole folder), after checking every file.

    Raises:
        CollateralError: a file is missing or its bytes are not the manifest's.
    """
    manifest = read_sealed_json(folder / "manifest.json", "a model's manifest")
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CollateralError(
                f"{path}: listed in manifest.json but missing; delete {folder} and run again"
            )
        if sha256_file(path) != expected:
            raise CollateralError(f"{path}: its sha256 is not the manifest's; delete {folder} and run again")
    return manifest["files"], str(manifest["sha256"])


def write_manifest(folder: Path, source: Mapping[str, Any]) -> None:
    """Write manifest.json: where the folder's files came from, the sha256 of each, and one over all."""
    files = {
        path.name: sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "manifest.json" and not path.name.startswith(".")
    }
    write_json(
        folder / "manifest.json", {"source": dict(source), "files": files, "sha256": folder_identity(files)}
    )


def described_source(folder: Path) -> str:
    """Return where a folder's files came from, in words that name no path of this machine."""
    source = read_sealed_json(folder / "manifest.json", "a model's manifest")["source"]
    if "hub" in source:
        return f"hub {source['hub']}@{source['revision']}"
    if "wheel" in source:
        return f"wheel {source['wheel']}, {source['member']}"
    return f"folder {Path(source['folder']).name}" if "folder" in source else "exported checkpoint"


def folder_identity(files: dict[str, str]) -> str:
    """Return one sha256 for a folder: over its sorted names and their hashes."""
    return hashlib.sha256("\n".join(f"{h} {n}" for n, h in sorted(files.items())).encode()).hexdigest()


def stored_tensor(folder: Path, files: Mapping[str, str], name: str) -> Tensor:
    """Return one tensor of a model folder; hub files may leave out the base model's prefix."""
    for file in sorted(files):
        if not file.endswith(".safetensors"):
            continue
        with safe_open(folder / file, framework="pt") as handle:
            for key in handle.keys():  # noqa: SIM118 (not a dict)
                if name == key or name.endswith(f".{key}"):
                    tensor: Tensor = handle.get_tensor(key)
                    return tensor
    raise CollateralError(
        f"{folder}: no safetensors file holds the parameter {name}; delete the folder and run again"
    )
