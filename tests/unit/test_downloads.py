"""Bringing in a data set's file: whole and verified or not at all, continued where it broke off."""

import functools
import hashlib
import logging
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx2
import pytest

from collateral.data.download import http as transfers
from collateral.data.download.fetch import fetch
from collateral.data.download.retry import Patience
from collateral.errors import CollateralError
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

    def call(mirror=None, max_bytes=2**30, read=5, **source):
        return fetch(
            {"url": served.url, "sha256": SHA} | source,
            tmp_path / "data" / "facts.json",
            mirror,
            max_bytes=max_bytes,
            patience=Patience(sleep=waits.append, read=read),
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
        (HUB | {"hub": "data"}, "write OWNER/NAME"),
        (HUB | {"hub": "../data"}, "write OWNER/NAME"),
        (HUB | {"file": "/facts.json"}, "is refused"),
        (HUB | {"file": "a/../../facts.json"}, "is refused"),
        ({"url": "https://example.org/x.json", "sha256": None}, "needs the key 'sha256'"),
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
        "import sys, collateral.data.download.fetch;"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_that_ignores_ranges_sends_the_file_anew(get, served):
    served.script = [("drop", 300_000), "ignore ranges"]
    assert get().read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("tag", ['"v1"', None])
def test_a_file_that_changes_between_tries_is_not_patched_together(get, served, tmp_path, tag):
    def change():
        served.body, served.tag = BODY, tag and '"v2"'
        return "fine"

    served.body, served.tag = bytes(len(BODY)), tag
    served.script = [("drop", 300_000), change]
    assert get().read_bytes() == BODY
    # by the ETag the server notices at once; without one the checksum does, and the file is fetched once more
    assert served.asked == [None, "bytes=300000-"] + ([] if tag else [None])
    assert left(tmp_path) == ["facts.json"]


def test_another_range_than_the_one_asked_for_is_not_taken(get, served, waits):
    part = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}
    served.script = [("drop", 300_000), (206, part, BODY)]
    assert get().read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-", None]
    assert len(waits) == 2  # it was noticed by the answer's range, not by the checksum


def test_a_file_that_grows_over_the_limit_is_refused_when_continued(get, served, tmp_path):
    part = {"Content-Range": f"bytes 300000-{2**31}/{2**31 + 1}"}
    served.script = [("drop", 300_000), (206, part)]
    refused(get, f"at least {2**31 + 1} bytes, over the limit")
    assert left(tmp_path) == []


def test_a_weak_etag_names_no_version(get, served):
    served.tag = 'W/"v1"'
    served.script = [("drop", 300_000)]
    assert get().read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-"]


def test_a_server_that_announces_too_much_is_judged_by_the_checksum(get, served):
    served.script = [("length", len(BODY) + 100)]
    assert get().read_bytes() == BODY
    assert served.asked == [None, f"bytes={len(BODY)}-"]


def test_a_server_that_announces_too_little_is_not_believed(get, served, tmp_path):
    served.script = [("length", 1000)] * 3
    refused(get, "has the sha256")
    assert left(tmp_path) == []


def test_a_server_that_never_gets_on_is_left_after_bounded_waiting(get, served, waits, tmp_path):
    served.script = [("drop", 1000)] + [("drop", 0)] * 100
    refused(get, "run again to continue the transfer, or put the file")
    assert len(served.asked) == len(waits) + 1 == 10
    for tries, wait in enumerate(waits):
        assert min(2**tries, 60) <= wait <= min(2**tries + 1, 60)
    assert left(tmp_path) == ["facts.json.part", "facts.json.part.json"]
    served.script = []
    assert get().read_bytes() == BODY
    assert served.asked[-1] == "bytes=1000-"
    assert left(tmp_path) == ["facts.json"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_when_it_says(get, served, waits, status):
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    served.script = [(status, {"Retry-After": "70"}), (status, {"Retry-After": in_a_minute}), (status, {})]
    assert get().read_bytes() == BODY
    assert waits[0] == 70
    assert 85 < waits[1] <= 90
    assert 4 <= waits[2] <= 5


def test_a_server_that_asks_for_hours_is_not_waited_for(get, served, waits):
    served.script = [(503, {"Retry-After": "7200"})]
    refused(get, r"answers 503 \(Service Unavailable\) and asks to wait 7200 s; run again")
    assert waits == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(get, served, waits, status):
    served.script = [(status, {})]
    refused(get, f"answers {status} .*; correct the url, or put the file")
    assert len(served.asked) == 1
    assert waits == []


def test_a_silent_server_is_not_waited_for_without_end(get, served, waits):
    served.script = [lambda: time.sleep(0.6) or "fine"]
    assert get(read=0.2).read_bytes() == BODY
    assert len(waits) == 1


def test_a_redirect_is_followed_and_the_rest_fetched_there(get, served):
    served.script = [(302, {"Location": "/elsewhere"}), ("drop", 1000)]
    assert get().read_bytes() == BODY
    assert served.asked == [None, None, "bytes=1000-"]


@pytest.mark.parametrize(
    ("location", "requests", "match"),
    [
        ("/facts.json", 6, "redirects more than 5 times"),
        ("http://example.org/facts.json", 1, "redirects to where it may not .*plain http"),
        ("file:///etc/hostname", 1, "redirects to where it may not .*neither https nor http"),
    ],
)
def test_a_redirect_without_end_or_to_where_it_may_not_is_refused(
    get, served, waits, location, requests, match
):
    served.script = [(302, {"Location": location})] * 50
    refused(get, match)
    assert len(served.asked) == requests
    assert waits == []


def test_a_file_over_the_limit_is_refused_and_nothing_kept(get, served, tmp_path):
    refused(get, f"at least {len(BODY)} bytes, over the limit of 1000", max_bytes=1000)
    assert left(tmp_path) == []


def test_a_file_over_the_limit_that_hides_its_length_is_refused(get, served, tmp_path):
    served.script = ["no length"]
    refused(get, "over the limit of 100000", max_bytes=100_000)
    assert left(tmp_path) == []


def test_a_file_without_a_stated_length_comes_whole(get, served):
    served.script = ["no length"]
    assert get().read_bytes() == BODY


def test_a_compressed_file_is_kept_as_it_is(get, served):
    served.headers = {"Content-Encoding": "gzip"}  # as some servers say of an archive
    assert get().read_bytes() == BODY
    assert served.codings == {"identity"}


def test_what_is_secret_in_a_url_is_not_told(get, served, tmp_path, caplog):
    served.script = [(503, {}), (403, {})]
    with caplog.at_level(logging.DEBUG, "collateral"):
        line = refused(get, "answers 403", url=served.url + "?token=s3cret")
    assert "s3cret" not in line + caplog.text
    served.script = [("drop", 1000), (404, {})]
    refused(get, "answers 404", url=served.url + "?token=s3cret")
    assert left(tmp_path) == ["facts.json.part", "facts.json.part.json"]
    assert not any(b"s3cret" in path.read_bytes() for path in (tmp_path / "data").iterdir())


def test_a_partial_file_of_another_url_is_not_continued(get, served, tmp_path):
    served.script = [("drop", 1000), (404, {})]
    refused(get, "answers 404", url=served.url.replace("facts", "other"), file="facts.json")
    assert get().read_bytes() == BODY
    assert served.asked[-1] is None


@pytest.mark.parametrize("note", [None, "", "[]", "{}", '{"url": 1}', '{"url": "URL", "validator": 1}'])
def test_a_partial_file_of_unknown_origin_is_not_continued(get, served, tmp_path, note):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "facts.json.part").write_bytes(b"x" * 1000)
    if note is not None:
        (tmp_path / "data" / "facts.json.part.json").write_text(note.replace("URL", served.url))
    assert get().read_bytes() == BODY
    assert served.asked == [None]


def test_a_redirect_from_https_to_http_is_refused(waits, tmp_path, monkeypatch):
    def answer(request):
        assert request.url.scheme == "https"
        return httpx2.Response(302, headers={"Location": "http://localhost/facts.json"})

    client = functools.partial(httpx2.Client, transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(transfers.httpx2, "Client", client)
    source = {"url": "https://example.org/facts.json", "sha256": SHA}
    refused(
        lambda: fetch(source, tmp_path / "facts.json"), "redirects from https to http://localhost/facts.json"
    )


def test_a_partial_file_is_removed_once_the_mirror_has_the_file(get, served, mirror, tmp_path):
    served.script = [("drop", 1000), (404, {})]
    refused(get, "answers 404")
    get(mirror=mirror)
    assert left(tmp_path) == ["facts.json"]


def test_a_damaged_partial_file_costs_a_second_transfer_and_no_more(get, served, tmp_path):
    served.script = [("drop", 1000), (404, {})]
    refused(get, "answers 404")
    (tmp_path / "data" / "facts.json.part").write_bytes(b"x" * 1000)
    assert get().read_bytes() == BODY
    assert served.asked[2:] == ["bytes=1000-", None]


def test_a_folder_that_cannot_be_made_is_named(served, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(
        lambda: fetch({"url": served.url, "sha256": SHA}, tmp_path / "file" / "facts.json"),
        r"facts.json: cannot be written \(.*\); check the permissions",
    )


FETCH = """
import sys
from pathlib import Path
from collateral.data.download.fetch import fetch
fetch({"url": sys.argv[1], "sha256": sys.argv[2]}, Path(sys.argv[3]))
"""


def test_a_killed_process_leaves_what_the_next_one_continues(get, served, tmp_path):
    gone = threading.Event()
    served.script = [("stall", 300_000, gone)]
    target = tmp_path / "data" / "facts.json"
    process = subprocess.Popen([sys.executable, "-c", FETCH, served.url, SHA, str(target)])
    part = target.with_name("facts.json.part")
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size == 300_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.wait()
    gone.set()
    assert left(tmp_path) == ["facts.json.part", "facts.json.part.json"]
    assert get().read_bytes() == BODY
    assert served.asked == [None, "bytes=300000-"]
    assert left(tmp_path) == ["facts.json"]


def test_a_process_killed_after_the_last_byte_fetches_nothing_again(get, served, tmp_path):
    served.script = [("length", len(BODY) + 1), (404, {})]
    refused(get, "answers 404")
    assert get().read_bytes() == BODY
    assert served.asked == [None] + [f"bytes={len(BODY)}-"] * 2


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
def test_the_job_fetches_or_ends_with_one_line(mirror, tmp_path, right):
    source = {"file": "facts.json", "sha256": SHA if right else "a" * 64}
    target, log = tmp_path / "facts.json", tmp_path / "download.log"
    told = repr((source, str(mirror), str(target), str(log)))
    command = [sys.executable, "-c", JOB, str(SCRIPT), told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert target.exists() == right
    assert done.returncode == (0 if right else 1)
    if right:
        assert done.stderr == ""
        assert f"{len(BODY)} bytes, sha256 {SHA}" in log.read_text()
    else:
        assert done.stderr.startswith("ERROR: ")
        assert done.stderr.count("\n") == 1


def test_an_address_that_names_a_commit_may_lack_the_sha256(get, served, tmp_path, caplog):
    """The warning says what to write beside it."""
    with caplog.at_level(logging.WARNING):
        path = get(url=f"{served.url.rpartition('/')[0]}/{REVISION}/facts.json", sha256=None)
    assert path.read_bytes() == BODY
    assert f"sha256: {SHA}" in caplog.text
    assert left(tmp_path) == ["facts.json", "facts.source.json"]
    (tmp_path / "data/facts.json").write_bytes(BODY[:-1] + b" ")
    get(url=f"{served.url.rpartition('/')[0]}/{REVISION}/facts.json", sha256=None)
    assert path.read_bytes() == BODY  # what it was when it came is known
