"""The hub's client against an imitation of the hub on the loopback address: verified, or one line."""

import hashlib
import json
import os
import subprocess
import sys

import httpx2
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from collateral.data.download.hub import asked
from collateral.data.download.retry import Patience
from collateral.errors import CollateralError
from loopback import serving

BODY = bytes(range(256)) * 400
SHA = hashlib.sha256(BODY).hexdigest()
BLOB = hashlib.sha1(f"blob {len(BODY)}\0".encode() + BODY).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = {"hub": "some/data", "revision": REVISION, "file": "data/facts.json"}

FETCH = """
import json, logging, sys
from pathlib import Path
from collateral.data.download.fetch import fetch
from collateral.errors import CollateralError
from collateral.data.download.retry import Patience
logging.basicConfig(level="INFO")
source, target, mirror, max_bytes = json.loads(sys.argv[1])
waits = []
try:
    fetch(source, Path(target), mirror, max_bytes=max_bytes, patience=Patience(sleep=waits.append))
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
def get(served, tmp_path):
    """Fetch in a process of its own, as the client reads its settings once; return its line and its log."""

    def call(offline=False, max_bytes=2**20, **source):
        environment = os.environ | {
            "HF_ENDPOINT": served.url.rpartition("/")[0],
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_s3cret",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        task = json.dumps([SOURCE | source, str(tmp_path / "data" / "facts.json"), None, max_bytes])
        command = [sys.executable, "-c", FETCH, task]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert "s3cret" not in done.stdout + done.stderr
        assert done.stdout.count("\n") <= 1
        return done.stdout, done.stderr

    return call


def target(tmp_path):
    return tmp_path / "data" / "facts.json"


def cached(tmp_path):
    return next((tmp_path / "home").glob("hub/datasets--some--data/blobs/*"))


@pytest.mark.parametrize("name", [SHA, BLOB])
def test_a_file_of_the_hub_comes_whole_and_then_serves_without_a_network(get, served, tmp_path, name):
    served.tag = f'"{name}"'
    assert get()[0] == ""
    assert target(tmp_path).read_bytes() == BODY
    assert not target(tmp_path).is_symlink()
    target(tmp_path).unlink()
    assert get(offline=True)[0] == ""
    assert target(tmp_path).read_bytes() == BODY


def test_a_file_of_the_hub_that_breaks_off_is_asked_for_again(get, served, tmp_path):
    served.script = ["fine", "fine", ("drop", 50_000)]  # asked about twice, then sent
    assert get()[0] == ""
    assert target(tmp_path).read_bytes() == BODY
    assert len(served.asked) == 2


@pytest.mark.parametrize("name", [SHA, BLOB])
def test_a_file_damaged_in_the_cache_is_refused(get, served, tmp_path, name):
    served.tag = f'"{name}"'
    get()
    target(tmp_path).unlink()
    cached(tmp_path).write_bytes(bytes(len(BODY)))
    assert "is damaged in the hub's cache; delete " in get()[0]
    assert not target(tmp_path).exists()


def test_the_checksum_of_the_config_counts_too(get, tmp_path):
    line = get(sha256="a" * 64)[0]
    assert f"has the sha256 {SHA}, the source states {'a' * 64}" in line
    assert list((tmp_path / "data").iterdir()) == []
    assert get(sha256=SHA)[0] == ""


def test_a_file_of_the_hub_over_the_limit_is_not_fetched(get, served):
    assert f"holds {len(BODY)} bytes, over the limit of 1000" in get(max_bytes=1000)[0]
    assert served.asked == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {"X-Error-Code": "EntryNotFound"}),
        (404, {"X-Error-Code": "RevisionNotFound"}),
        (404, {"X-Error-Code": "RepoNotFound"}),
        (401, {}),
        (403, {"X-Error-Code": "GatedRepo"}),
    ],
)
def test_what_the_hub_does_not_have_or_give_is_one_line_with_the_remedy(
    get, served, tmp_path, status, headers
):
    served.script = [(status, headers)] * 20
    line, log = get()
    assert f"data/facts.json of some/data@{REVISION[:12]} could not be downloaded" in line
    assert "put the file facts.json into a folder and set `mirror:`" in line
    assert "trying again" not in log


def test_a_hub_that_fails_for_a_while_is_asked_again(get, served, tmp_path):
    served.script = [(503, {"Retry-After": "1"})] * 2
    line, _ = get()
    assert line == ""
    assert target(tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("fault", "tries", "match"),
    [
        (httpx2.ConnectError("[Errno -2] no such host"), 1, r"\(ConnectError: .*no such host\)"),
        (httpx2.ReadTimeout("too slow"), 1, r"\(ReadTimeout: too slow\)"),
        (OSError("fewer bytes than announced"), 10, "fewer bytes"),
        (PermissionError(13, "Permission denied", "cache"), 1, "Permission denied"),
        (ValueError("broken\nat https://host/path?X-Signature=s3cret"), 1, "broken"),
        (ValueError("at https://host/path?X-Signature=s3cret"), 1, "at https://host/path\\)"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_every_fault_of_the_client_is_one_line(monkeypatch, fault, tries, match, hidden):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked_for, waits = [], []

    def action():
        asked_for.append(1)
        if hidden:
            raise LocalEntryNotFoundError("cannot find the file in the cache") from fault
        raise fault

    with pytest.raises(CollateralError, match="x of some/data could not be downloaded .*" + match) as caught:
        asked(action, "x of some/data", Patience(sleep=waits.append))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(asked_for) == len(waits) + 1 == tries
