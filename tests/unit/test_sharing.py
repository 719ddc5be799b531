"""Several studies share resources/: one process brings a thing, the others wait, and nobody redefines it."""

import errno
import hashlib
import json
import logging
import subprocess
import sys
import threading

import pytest

from collateral.data.shared_resources import check_source, is_shared, made_from, record
from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json
from collateral.io.locks import hold_lock
from collateral.models.download import fetch_model
from loopback import serving
from tiny import tiny_network, tiny_tokenizer

BODY = bytes(range(256)) * 4096
SHA = hashlib.sha256(BODY).hexdigest()
FETCH = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(level="INFO")
from collateral.data.download.fetch import fetch
fetch(json.loads(sys.argv[1]), Path(sys.argv[2]))
"""
MODEL = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(level="INFO")
from collateral.models.download import fetch_model
fetch_model(json.loads(sys.argv[1]), Path(sys.argv[2]))
"""
HOLD = """
import sys, time
from pathlib import Path
from collateral.io.locks import hold_lock
with hold_lock(Path(sys.argv[1])) as waited:
    print(waited, flush=True)
    time.sleep(float(sys.argv[2]))
"""
WAITS = "is being filled by another process; waiting for it"


def started(code, *args):
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(process, text):
    """Read the log of a process up to a line with a text."""
    read = []
    for line in process.stderr:
        read.append(line)
        if text in line:
            return "".join(read)
    raise AssertionError("".join(read))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    tiny_network("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_two_processes_that_want_one_file_fetch_it_once(tmp_path):
    target, gate, arrived = tmp_path / "data/facts.json", threading.Event(), threading.Event()

    def stalled():
        arrived.set()
        return ("stall", 300_000, gate)

    with serving(BODY) as served:
        served.script = [stalled]
        wanted = json.dumps({"url": served.url, "sha256": SHA})
        first = started(FETCH, wanted, target)
        assert arrived.wait(30)
        second = started(FETCH, wanted, target)
        until(second, WAITS)
        assert not target.exists()
        gate.set()
        logs = [process.communicate(timeout=60)[1] for process in (first, second)]
        assert first.returncode == second.returncode == 0, logs
        assert target.read_bytes() == BODY
        assert "is there already" in logs[1]
        assert served.asked == [None, None]  # both by the first process


def test_a_model_that_another_process_has_just_brought_is_kept_as_it_is(tmp_path, source):
    folder = tmp_path / "models/tiny"
    with hold_lock(folder):
        second = started(MODEL, json.dumps({"folder": str(source)}), folder)
        until(second, WAITS)
        assert not folder.exists()
        # what the holder of the lock does, and the other must not undo
        brought = tmp_path / "elsewhere"
        fetch_model({"folder": str(source)}, brought)
        brought.rename(folder)
        before = (folder / "manifest.json").stat()
    log = second.communicate(timeout=60)[1]
    assert second.returncode == 0, log
    assert "is there already, with the right sha256 of every file" in log
    after = (folder / "manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path):
    holder = started(HOLD, tmp_path / "place", 60)
    assert holder.stdout.readline() == "False\n"
    waiting = started(HOLD, tmp_path / "place", 0)
    holder.kill()
    holder.communicate()
    assert waiting.communicate(timeout=30)[0] in ("True\n", "False\n")
    assert waiting.returncode == 0
    with hold_lock(tmp_path / "place") as waited:
        assert not waited


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_warning_says_so_and_the_work_goes_on(tmp_path, monkeypatch, caplog, code):
    def refused(descriptor, operation):
        raise OSError(code, "No locks")

    monkeypatch.setattr("fcntl.flock", refused)
    with caplog.at_level(logging.WARNING, "collateral"), hold_lock(tmp_path / "place") as waited:
        assert not waited
    assert "its file system has no locks (No locks); let one study alone download" in caplog.text


def test_a_model_of_the_same_source_is_kept_and_a_damaged_one_is_fetched_again(tmp_path, source, caplog):
    folder = tmp_path / "tiny"
    fetch_model({"folder": str(source)}, folder)
    first = (folder / "manifest.json").stat().st_ino
    fetch_model({"folder": str(source)}, folder)
    assert (folder / "manifest.json").stat().st_ino == first
    whole = (folder / "manifest.json").read_text()
    (folder / "config.json").unlink()
    with caplog.at_level(logging.WARNING, "collateral"):
        fetch_model({"folder": str(source)}, folder)
    assert "config.json: listed in manifest.json but missing" in caplog.text
    assert (folder / "manifest.json").read_text() == whole


def test_another_source_replaces_every_file_of_the_one_before(tmp_path, source):
    other = tmp_path / "other"
    tiny_network("gpt2").save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    (source / "extra.json").write_text("{}")
    fetch_model({"folder": str(source)}, tmp_path / "tiny")
    fetch_model({"folder": str(other)}, tmp_path / "tiny")
    manifest = json.loads((tmp_path / "tiny/manifest.json").read_text())
    assert manifest["source"] == {"folder": str(other)}
    assert "extra.json" not in manifest["files"]
    assert not (tmp_path / "tiny/extra.json").is_symlink()


def test_a_shared_model_is_not_replaced_by_another_source(tmp_path, source, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study/models").symlink_to(tmp_path / "shared")
    monkeypatch.chdir(tmp_path / "study")
    folder = (tmp_path / "study/models/tiny").relative_to(tmp_path / "study")
    fetch_model({"folder": str(source)}, folder)
    fetch_model({"folder": "../source"}, folder)  # the same folder in other words
    whole = (folder / "manifest.json").read_bytes()
    with pytest.raises(
        CollateralError, match=r"is shared with other studies .* was made from folder: "
    ) as caught:
        fetch_model({"folder": str(tmp_path / "other")}, folder)
    assert "\n" not in str(caught.value)
    assert (folder / "manifest.json").read_bytes() == whole


def test_a_table_is_remade_in_a_folder_of_its_own_and_refused_in_a_shared_one(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study/linked").symlink_to(tmp_path / "shared")
    (tmp_path / "study/own").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    root = (tmp_path / "study").relative_to(tmp_path / "study")
    assert is_shared(root / "linked/facts.parquet")
    assert not is_shared(root / "own/facts.parquet")
    for name in ("linked", "own"):
        table = root / name / "facts.parquet"
        assert not check_source(table, {"limit": 40})
        with made_from(table, {"limit": 40}):
            table.write_text("40")
        assert read_sealed_json(record(table))["source"] == {"limit": 40}
    with made_from(root / "own/facts.parquet", {"limit": 2}):
        assert not record(root / "own/facts.parquet").exists()
    table = root / "linked/facts.parquet"
    with (
        pytest.raises(CollateralError, match="made from limit: 40, but this study asks for limit: 2; give"),
        made_from(table, {"limit": 2}),
    ):
        raise AssertionError("the block must not run")
    assert table.read_text() == "40"
