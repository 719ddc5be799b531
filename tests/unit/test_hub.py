"""The hub's client against an imitation of the hub on the loopback address: verified, or one line."""

import hashlib
import json
import os
import subprocess
import sys

import httpx2
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from collateral.data.download.hub import download_hub_file
from collateral.data.download.source import Source
from loopback import serving
from refusals import refused

BODY = bytes(range(256)) * 400
SHA = hashlib.sha256(BODY).hexdigest()
BLOB = hashlib.sha1(f"blob {len(BODY)}\0".encode() + BODY).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = {"hub": "some/data", "revision": REVISION, "file": "data/facts.json"}

FETCH = """
import json, logging, sys
from pathlib import Path
from collateral.data.download import source as sources
from collateral.data.download.fetch import fetch
from collateral.errors import CollateralError
logging.basicConfig(level="INFO")
source, target, sources.MAX_BYTES = json.loads(sys.argv[1])
try:
    fetch(source, Path(target))
except CollateralError as error:
    print(error)
"""


@pytest.fixture
def served():
    with serving(BODY) as served:
        served.tag = f'"{SHA}"'
        served.headers = {"X-Repo-Commit": REVISION}
        yield served


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "facts.json"


@pytest.fixture
def get(served, tmp_path, target):
    """Fetch in a separate process, as the client reads its settings once; return the error's line, or nothing."""

    def call(offline=False, max_bytes=2**20, **source):
        environment = os.environ | {
            "HF_ENDPOINT": served.url.rpartition("/")[0],
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_s3cret",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        task = json.dumps([SOURCE | source, str(target), max_bytes])
        command = [sys.executable, "-c", FETCH, task]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert "s3cret" not in done.stdout + done.stderr
        assert done.stdout.count("\n") <= 1
        return done.stdout

    return call


@pytest.mark.parametrize("name", [SHA, BLOB])
def test_a_file_of_the_hub_is_cached_for_offline_use_and_verified(get, served, target, tmp_path, name):
    served.tag = f'"{name}"'
    assert get() == ""
    assert target.read_bytes() == BODY
    assert not target.is_symlink()
    target.unlink()
    assert get(offline=True) == ""
    assert target.read_bytes() == BODY
    target.unlink()
    next((tmp_path / "home").glob("hub/datasets--some--data/blobs/*")).write_bytes(bytes(len(BODY)))
    assert "is damaged in the hub's cache; delete " in get(offline=True)
    assert not target.exists()


def test_offline_mode_without_a_cached_file_names_the_remedy(get, target):
    line = get(offline=True)
    assert f"data/facts.json of some/data@{REVISION[:12]} could not be downloaded" in line
    assert "HF_HUB_OFFLINE=1 forbids it" in line
    assert "put the file facts.json into a folder and set `mirror:`" in line
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("script", [["fine", "fine", ("drop", 50_000)], [(503, {"Retry-After": "1"})] * 2])
def test_a_hub_that_fails_for_a_while_is_asked_again(get, served, target, script):
    served.script = script
    assert get() == ""
    assert target.read_bytes() == BODY


def test_a_stated_checksum_is_compared(get, target):
    assert f"has the sha256 {SHA}, the source states {'a' * 64}" in get(sha256="a" * 64)
    assert list(target.parent.iterdir()) == []
    assert get(sha256=SHA) == ""


def test_a_file_of_the_hub_over_the_limit_is_not_downloaded(get, served):
    assert f"data/facts.json has {len(BODY)} bytes, over the limit of 1000" in get(max_bytes=1000)
    assert served.asked == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [(404, {"X-Error-Code": "EntryNotFound"}), (401, {}), (403, {"X-Error-Code": "GatedRepo"})],
)
def test_a_refusal_of_the_hub_is_one_line_with_the_remedy(get, served, status, headers):
    served.script = [(status, headers)] * 20
    line = get()
    assert f"data/facts.json of some/data@{REVISION[:12]} could not be downloaded" in line
    assert "put the file facts.json into a folder and set `mirror:`" in line


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (httpx2.ConnectError("[Errno -2] no such host"), r"\(ConnectError: .*no such host\)"),
        (httpx2.ReadTimeout("too slow"), r"\(ReadTimeout: too slow\)"),
        (PermissionError(13, "Permission denied", "cache"), "Permission denied"),
        (ValueError("broken\nat https://host/path?X-Signature=s3cret"), "broken"),
        (ValueError("at https://host/path?X-Signature=s3cret"), "at https://host/path\\)"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_every_error_of_the_client_is_one_line(monkeypatch, fault, match, hidden):
    def fail(*_, **__):
        if hidden:
            raise LocalEntryNotFoundError("cannot find the file in the cache") from fault
        raise fault

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    source = Source("x", hub="some/data", revision=REVISION)
    line = refused("x of some/data@.* could not be downloaded .*" + match, download_hub_file, source)
    assert "s3cret" not in line
