"""A data set's file from a URL or a mirror: whole and verified, or one line that says what to do."""

import functools
import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

from collateral.data.download import http
from collateral.data.download import source as sources
from collateral.data.download.fetch import fetch
from collateral.data.download.mirror import find_in_mirror
from loopback import serving
from refusals import refused

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "some/data", "revision": REVISION, "file": "data/facts.json"}


@pytest.fixture
def served():
    with serving(BODY) as served:
        yield served


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds waited between tries, in order; no test waits them."""
    seconds = []
    monkeypatch.setattr("tenacity.nap.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "facts.json"


@pytest.fixture
def get(served, target):
    """Fetch the served file; keywords replace what the source states."""
    return lambda mirror=None, **source: fetch({"url": served.url, "sha256": SHA} | source, target, mirror)


def files_beside(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_is_downloaded_whole_and_kept_when_asked_for_again(get, served, target):
    assert get().read_bytes() == BODY
    assert get() == target
    assert len(served.asked) == 1
    assert files_beside(target) == ["facts.json"]


def test_a_changed_file_is_downloaded_again(get, caplog):
    get().write_bytes(b"something else")
    with caplog.at_level(logging.WARNING, "collateral"):
        assert get().read_bytes() == BODY
    assert "is downloaded again" in caplog.text


def test_a_wrong_checksum_leaves_nothing_and_names_both(get, served, target):
    line = refused("has the sha256", functools.partial(get, sha256="a" * 64))
    for text in (served.url, SHA, "a" * 64, "make stage", "`mirror:`"):
        assert text in line
    assert files_beside(target) == []


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"url": "http://example.org/facts.json"}, "http is for localhost only"),
        ({"url": "ftp://example.org/facts.json"}, "is refused; write https"),
        ({"url": "file:///etc/hostname"}, "is refused; write https"),
        ({"url": "facts.json"}, "is refused; write https"),
        ({"url": "https://me:secret@example.org/facts.json"}, "holds a user name or password"),
        ({"url": "https://example.org/"}, "file: '' of a data source is refused"),
        ({"url": "https://example.org/%2e%2e"}, r"file: '\.\.' of a data source is refused"),
        ({"url": "https://example.org/..%2Fx"}, r"file: '\.\./x' of a data source is refused"),
        ({"file": "../facts.json"}, "is refused"),
        ({"file": "a/facts.json"}, "is refused"),
        ({"file": ".facts.json"}, "is refused"),
        ({"file": "facts\n.json"}, "is refused"),
        ({"sha256": "abc"}, "64 hex digits"),
        ({"hub": "some/data"}, "has the keys url, sha256, hub"),
        ({"sha265": SHA}, "has the keys url, sha256, sha265"),
    ],
)
def test_an_unsafe_source_is_refused_before_anything_is_asked(get, served, target, source, match):
    assert "secret" not in refused(match, functools.partial(get, **source))
    assert served.asked == []
    assert not target.parent.exists()


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"url": "https://example.org/x.json"}, r"write url \+ sha256"),
        ({"hub": "some/data", "file": "x.json"}, r"hub \+ revision \+ file"),
        ({"hub": "some/data", "revision": REVISION}, r"hub \+ revision \+ file"),
        (HUB | {"revision": "main"}, "a 40-digit commit"),
        (HUB | {"hub": "data"}, "OWNER/NAME"),
        (HUB | {"hub": "../data"}, "OWNER/NAME"),
        (HUB | {"file": "/facts.json"}, "is refused"),
        (HUB | {"file": "a/../../facts.json"}, "is refused"),
        ({"url": "https://example.org/x.json", "sha256": None}, r"write url \+ sha256"),
        ({"wheel": "x==1"}, "has the keys wheel"),
        ({}, "has the keys none"),
    ],
)
def test_an_incomplete_source_is_refused(target, tmp_path, source, match):
    refused(match, fetch, source, target, tmp_path)


def test_a_url_that_names_a_commit_may_lack_the_sha256(get, served, target, caplog):
    """The warning says what to write beside it, and the first download's sha256 holds for later ones."""
    url = f"{served.url.rpartition('/')[0]}/{REVISION}/facts.json"
    with caplog.at_level(logging.WARNING):
        assert get(url=url, sha256=None).read_bytes() == BODY
    assert f"sha256: {SHA}" in caplog.text
    assert files_beside(target) == ["facts.json", "facts.source.json"]
    target.write_bytes(BODY[:-1] + b" ")
    assert get(url=url, sha256=None).read_bytes() == BODY


def test_without_a_server_one_line_names_the_remedy(get, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/facts.json"
    line = refused("cannot be read", functools.partial(get, url=url))
    assert f"put the file facts.json (sha256 {SHA}) into a folder and set `mirror:`" in line
    assert len(waits) == http.TRIES - 1
    assert sum(waits) < 40


@pytest.mark.parametrize("fault", [("drop", 300_000), (408, {}), (429, {}), (500, {}), (503, {})])
def test_a_failing_server_is_asked_again(get, served, waits, target, fault):
    served.script = [fault, fault]
    assert get().read_bytes() == BODY
    assert len(served.asked) == 3
    assert len(waits) == 2
    assert files_beside(target) == ["facts.json"]


def test_a_server_that_never_recovers_is_given_up(get, served, target):
    served.script = [("drop", 1000)] * 100
    refused("check the network and run again", get)
    assert len(served.asked) == http.TRIES
    assert files_beside(target) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(get, served, status):
    served.script = [(status, {})]
    refused(f"{status} .*; correct the url.*put the file", get)
    assert len(served.asked) == 1


def test_a_silent_server_is_not_waited_for_without_end(get, served, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    gate = threading.Event()
    served.script = [lambda: gate.wait(0.6) or "fine"]
    assert get().read_bytes() == BODY
    assert len(served.asked) == 2


def test_a_redirect_is_followed(get, served):
    served.script = [(302, {"Location": "/elsewhere"})]
    assert get().read_bytes() == BODY


@pytest.mark.parametrize(
    ("location", "requests", "match"),
    [
        ("/facts.json", 6, "TooManyRedirects.*correct the url"),
        ("http://example.org/facts.json", 1, "http is for localhost only"),
        ("file:///etc/hostname", 1, "is refused; write https"),
    ],
)
def test_a_redirect_without_end_or_to_an_unsafe_url_is_refused(get, served, location, requests, match):
    served.script = [(302, {"Location": location})] * 50
    refused(match, get)
    assert len(served.asked) == requests


def test_a_redirect_from_https_to_http_is_refused(target, monkeypatch):
    def answer(request):
        assert request.url.scheme == "https"
        return httpx2.Response(302, headers={"Location": "http://localhost/facts.json"})

    client = functools.partial(httpx2.Client, transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(http.httpx2, "Client", client)
    source = {"url": "https://example.org/facts.json", "sha256": SHA}
    refused("http://localhost/facts.json is refused", fetch, source, target)


@pytest.mark.parametrize("behaviour", ["fine", "no length"])
def test_a_file_over_the_limit_is_refused_and_not_kept(get, served, target, monkeypatch, behaviour):
    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    served.script = [behaviour]
    refused("bytes, over the limit of 100000", get)
    assert files_beside(target) == []


def test_a_file_of_unknown_length_or_content_coding_is_kept_as_stored(get, served):
    served.headers = {"Content-Encoding": "gzip"}  # as some servers say of an archive
    served.script = ["no length"]
    assert get().read_bytes() == BODY
    assert served.codings == {"identity"}


def test_a_secret_in_a_url_is_not_logged(get, served, caplog):
    served.script = [(503, {}), (403, {})]
    with caplog.at_level(logging.DEBUG, "collateral"):
        line = refused("403", functools.partial(get, url=served.url + "?token=s3cret"))
    assert "s3cret" not in line + caplog.text


def test_a_folder_that_cannot_be_made_is_named(served, tmp_path):
    (tmp_path / "file").write_text("in the way")
    source = {"url": served.url, "sha256": SHA}
    refused(
        r"facts.json: cannot be written \(.*\); check the folder's permissions",
        fetch,
        source,
        tmp_path / "file" / "facts.json",
    )


JOB = """
import runpy, sys
from types import SimpleNamespace
source, mirror, target, log = eval(sys.argv[2])
resources = SimpleNamespace(mirror=mirror)
snakemake = SimpleNamespace(
    params=SimpleNamespace(source=source), resources=resources, output=[target], log=[log]
)
runpy.run_path(sys.argv[1], {"snakemake": snakemake})
"""
SCRIPT = Path(__file__).parents[2] / "workflow/scripts/download.py"


@pytest.mark.parametrize("right", [True, False])
def test_the_job_downloads_or_ends_with_one_line(mirror, tmp_path, right):
    put(mirror / "facts.json")
    source = {"file": "facts.json", "sha256": SHA if right else "a" * 64}
    target, log = tmp_path / "facts.json", tmp_path / "download.log"
    command = [sys.executable, "-c", JOB, str(SCRIPT), repr((source, str(mirror), str(target), str(log)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert target.exists() == right
    assert done.returncode == (0 if right else 1)
    if right:
        assert done.stderr == ""
        assert f"{len(BODY)} bytes from {mirror / 'facts.json'}" in log.read_text()
    else:
        assert done.stderr.startswith("ERROR: ")
        assert done.stderr.count("\n") == 1


# a mirror ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    return tmp_path / "mirror"


def put(path, body=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_a_file_is_found_down_to_three_folders_below_the_mirror(mirror, below):
    path = put(mirror / below / "facts.json")
    assert find_in_mirror(mirror, "facts.json", SHA) == path


def test_a_file_that_a_mirror_lacks_is_named_with_its_checksum(mirror):
    line = refused(
        f"one file facts.json with the sha256 {SHA} and hold none", find_in_mirror, mirror, "facts.json", SHA
    )
    assert str(mirror) in line
    put(mirror / "a/b/c/d/facts.json")
    refused("hold none; put it there", find_in_mirror, mirror, "facts.json", SHA)


def test_of_several_files_the_one_with_the_checksum_is_used(mirror):
    other, path = put(mirror / "a/facts.json", b"another"), put(mirror / "b/facts.json")
    assert find_in_mirror(mirror, "facts.json", SHA) == path
    path.write_bytes(b"two")
    line = refused(f"with the sha256 {SHA}", find_in_mirror, mirror, "facts.json", SHA)
    for wrong in (other, path):
        assert f"{wrong} has the sha256 {hashlib.sha256(wrong.read_bytes()).hexdigest()}" in line


def test_without_a_checksum_two_different_files_are_refused_and_two_equal_ones_used(mirror):
    far, near = put(mirror / "b/c/facts.json"), put(mirror / "z/facts.json")
    assert find_in_mirror(mirror, "facts.json", "") == near
    far.write_bytes(b"another")
    line = refused("one file facts.json", find_in_mirror, mirror, "facts.json", "")
    assert str(far) in line
    assert str(near) in line


def test_linked_files_count_once_and_linked_folders_are_not_searched(mirror, tmp_path):
    outside = put(tmp_path / "outside" / "facts.json")
    mirror.mkdir()
    (mirror / "loop").symlink_to(mirror)
    (mirror / "folder").symlink_to(outside.parent)
    (mirror / "broken").mkdir()
    (mirror / "broken" / "facts.json").symlink_to(tmp_path / "nowhere")
    (mirror / "pipe").mkdir()
    os.mkfifo(mirror / "pipe" / "facts.json")
    refused("hold none", find_in_mirror, mirror, "facts.json", "")
    for name in ("b", "a"):
        (mirror / name).mkdir()
        (mirror / name / "facts.json").symlink_to(outside)
    assert find_in_mirror(mirror, "facts.json", "") == mirror / "a" / "facts.json"


@pytest.mark.parametrize("source", [{}, {"url": "https://example.org/facts.json"}])
def test_a_mirror_replaces_the_network_and_gives_a_copy(get, served, mirror, target, source):
    path = put(mirror / "a/b/c/facts.json")
    path.chmod(0o400)
    get(mirror, **source)
    path.unlink()
    assert target.read_bytes() == BODY
    assert target.stat().st_mode & 0o200
    assert served.asked == []


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"wrong", f"with the sha256 {SHA}; .* has the sha256"),
        (None, "hold none"),
        (bytes(2000), "over the limit of 1000"),
    ],
)
def test_a_mirror_without_a_fitting_file_leaves_nothing_and_asks_nobody(
    mirror, target, monkeypatch, body, match
):
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    put(mirror / "facts.json" if body else mirror / "other", body or b"x")
    sha256 = hashlib.sha256(body).hexdigest() if body and len(body) > 1000 else SHA
    refused(match, fetch, {"url": "https://example.org/facts.json", "sha256": sha256}, target, mirror)
    assert files_beside(target) == []


@pytest.mark.parametrize("source", [{"file": "facts.json"}, HUB])
def test_a_mirrors_file_may_lack_a_checksum(mirror, target, caplog, source):
    """Some data sets may not be passed on: no public checksum is known, and the folder's own file is used."""
    put(mirror / "facts.json")
    with caplog.at_level(logging.WARNING):
        assert fetch(source, target, mirror).read_bytes() == BODY
    assert "cannot be verified" in caplog.text


def test_a_file_without_an_address_needs_a_mirror(target):
    refused(
        r"facts\.json has no public address.*put the file facts.json", fetch, {"file": "facts.json"}, target
    )
