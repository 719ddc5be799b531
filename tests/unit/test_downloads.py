"""Bringing in a data set's file: whole and verified or not at all, continued where it broke off."""

import hashlib
import logging
import socket
import subprocess
import sys

import pytest

from collateral.downloads import fetch
from collateral.errors import CollateralError
from collateral.retries import Patience
from loopback import serving

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "some/data", "revision": REVISION, "file": "data/facts.json"}


@pytest.fixture
def served():
    with serving(BODY) as served:
        yield served


@pytest.fixture
def waits():
    """The seconds that were waited between tries, in order; nothing waits in fact."""
    return []


@pytest.fixture
def get(served, waits, tmp_path):
    """Fetch the served file; keywords replace what the source says."""

    def call(mirror=None, max_bytes=2**30, **source):
        return fetch(
            {"url": served.url, "sha256": SHA} | source,
            tmp_path / "data" / "facts.json",
            mirror,
            max_bytes=max_bytes,
            patience=Patience(sleep=waits.append, read=5),
        )

    return call


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "data").iterdir())


def refused(call, match, **source):
    with pytest.raises(CollateralError, match=match) as caught:
        call(**source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_comes_whole_and_alone(get, tmp_path):
    assert get().read_bytes() == BODY
    assert left(tmp_path) == ["facts.json"]


def test_a_file_that_is_there_is_verified_and_not_fetched_again(get, served):
    get()
    get()
    assert len(served.asked) == 1


def test_a_file_that_is_there_but_wrong_is_fetched_again(get, served, tmp_path, caplog):
    get().write_bytes(b"something else")
    with caplog.at_level(logging.WARNING, "collateral"):
        assert get().read_bytes() == BODY
    assert "is fetched again" in caplog.text


def test_a_wrong_checksum_leaves_nothing_and_names_both(get, served, tmp_path):
    line = refused(get, "has the sha256", sha256="a" * 64)
    assert served.url in line
    assert SHA in line
    assert "a" * 64 in line
    assert "mirror:" in line
    assert left(tmp_path) == []


def test_an_interrupted_transfer_is_continued(get, served, waits):
    served.script = [("drop", 300_000), ("drop", 300_000)]
    assert get().read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-", "bytes=600000-"]
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"url": "http://example.org/facts.json"}, "plain http, which is accepted from this machine only"),
        ({"url": "ftp://example.org/facts.json"}, "neither https nor http"),
        ({"url": "file:///etc/hostname"}, "neither https nor http"),
        ({"url": "facts.json"}, "neither https nor http"),
        ({"url": "https://me:secret@example.org/facts.json"}, "holds a user name or password"),
        ({"url": "https://example.org/"}, "file name '' of a data source is refused"),
        ({"url": "https://example.org/%2e%2e"}, r"file name '\.\.' of a data source is refused"),
        ({"url": "https://example.org/..%2Fx"}, r"file name '\.\./x' of a data source is refused"),
        ({"file": "../facts.json"}, "is refused"),
        ({"file": "a/facts.json"}, "is refused"),
        ({"file": ".facts.json"}, "is refused"),
        ({"file": "facts\n.json"}, "is refused"),
        ({"sha256": "abc"}, "is not 64 hexadecimal digits"),
        ({"hub": "some/data"}, "unknown key of a data source with 'url' 'hub'"),
        ({"sha265": SHA}, "did you mean 'sha256'"),
    ],
)
def test_a_source_that_is_not_safe_is_refused_before_anything_is_asked(get, served, tmp_path, source, match):
    line = refused(get, match, **source)
    assert "secret" not in line
    assert served.asked == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"url": "https://example.org/x.json"}, "needs the key 'sha256'"),
        ({"hub": "some/data", "file": "x.json"}, "needs the key 'revision'"),
        ({"hub": "some/data", "revision": REVISION}, "needs the key 'file'"),
        (HUB | {"revision": "main"}, "revision 'main' of some/data is not a 40-digit commit"),
        (HUB | {"hub": "data"}, "is not OWNER/NAME"),
        (HUB | {"hub": "../data"}, "is not OWNER/NAME"),
        (HUB | {"file": "/facts.json"}, "is refused"),
        (HUB | {"file": "a/../../facts.json"}, "is refused"),
        ({"file": "facts.json"}, "needs the key 'sha256'"),
        ({"wheel": "x==1"}, "unknown data source 'wheel'"),
        ({}, "unknown data source ''"),
    ],
)
def test_a_source_that_says_too_little_is_refused(tmp_path, source, match):
    refused(lambda: fetch(source, tmp_path / "facts.json", tmp_path), match)


def test_without_a_server_one_line_names_the_remedy(get, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/facts.json"
    line = refused(get, "cannot be read", url=url)
    assert f"put the file facts.json (sha256 {SHA}) into a folder and set `mirror:`" in line
    assert len(waits) == 2


def test_the_hub_in_offline_mode_names_the_remedy(tmp_path):
    line = refused(lambda: fetch(HUB, tmp_path / "facts.json"), "HF_HUB_OFFLINE=1 forbids it")
    assert f"data/facts.json of some/data@{REVISION[:12]}" in line
    assert "put the file facts.json into a folder and set `mirror:`" in line
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mirror(tmp_path):
    """A folder with the file three levels down."""
    folder = tmp_path / "mirror" / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / "facts.json").write_bytes(BODY)
    return tmp_path / "mirror"


@pytest.mark.parametrize("source", [{}, {"url": "https://example.org/facts.json"}])
def test_a_mirror_replaces_the_network(get, served, mirror, source):
    made = get(mirror=str(mirror), **source)
    assert made.read_bytes() == BODY
    assert not made.is_symlink()
    assert made.stat().st_ino != (mirror / "a/b/c/facts.json").stat().st_ino
    assert served.asked == []


def test_what_only_a_mirror_has_comes_from_there(mirror, tmp_path):
    source = {"file": "facts.json", "sha256": SHA}
    assert fetch(source, tmp_path / "x.json", mirror).read_bytes() == BODY
    refused(lambda: fetch(source, tmp_path / "y.json"), "has no public address; put the file facts.json")


def test_a_hub_file_without_a_checksum_comes_from_a_mirror_with_a_warning(mirror, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "collateral"):
        assert fetch(HUB, tmp_path / "x.json", mirror).read_bytes() == BODY
    assert "cannot be verified" in caplog.text


def test_downloading_imports_no_torch():
    code = (
        "import sys, collateral.downloads;"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
