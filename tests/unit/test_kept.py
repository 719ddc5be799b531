"""Finished work that is kept: taken back by the same job and no other, dropped once it is recorded."""

import json
import os
import time
from base64 import urlsafe_b64encode

import pytest

from collateral.runtime.job_cache import FORGOTTEN, claim, displace, drop, keep, take_back


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with one input and two outputs of a finished job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.parquet").write_bytes(b"facts")
    (tmp_path / "results").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"results/{name}").write_bytes(name.encode())
    return tmp_path


def job(params=None, outputs=("results/a", "results/b")):
    return claim("edit", ["in.parquet"], outputs, params or {"recipe": {"lr": 0.5}, "code": "c0de"})


def delete_outputs(place):
    for name in ("a", "b"):
        (place / f"results/{name}").unlink()


def record(place, name):
    """What Snakemake writes when it has seen a job end."""
    folder = place / ".snakemake/metadata"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / urlsafe_b64encode(name.encode()).decode()).write_text("{}")


def contents(place):
    return [path.read_bytes() for path in (place / "results/a", place / "results/b") if path.exists()]


def test_the_same_job_takes_its_outputs_back(place):
    keep(job())
    delete_outputs(place)
    assert take_back(job())
    assert contents(place) == [b"a", b"b"]
    assert not [path for path in (place / "results").iterdir() if path.name.endswith(".partial")]


def test_keeping_costs_no_disk(place):
    keep(job())
    assert (place / "results/a").stat().st_nlink == 2


@pytest.mark.parametrize(
    "change", ["params", "code", "input", "outputs"], ids=lambda change: f"other {change}"
)
def test_another_job_takes_nothing_back(place, change):
    keep(job())
    delete_outputs(place)
    other = job()
    if change == "params":
        other = job({"recipe": {"lr": 0.25}, "code": "c0de"})
    elif change == "code":
        other = job({"recipe": {"lr": 0.5}, "code": "0ther"})
    elif change == "input":
        (place / "in.parquet").write_bytes(b"other facts")
    else:
        other = job(outputs=("results/b", "results/a"))
    assert not take_back(other)
    assert contents(place) == []


def test_damaged_work_is_computed_again(place):
    keep(job())
    delete_outputs(place)
    kept = next((place / "results/.kept").glob("*/0"))
    kept.write_bytes(b"A")
    assert not take_back(job())
    assert contents(place) == []
    assert not take_back(job())


def test_recorded_work_is_dropped_and_stays_in_place(place):
    keep(job())
    for name in ("results/a", "results/b"):
        record(place, name)
    assert displace(place) == []
    assert contents(place) == [b"a", b"b"]
    assert (place / "results/a").stat().st_nlink == 1


def test_at_the_end_of_a_run_what_is_in_place_is_dropped(place):
    """Whatever the clocks of the machines say: a run that ends has recorded its jobs."""
    keep(job())
    drop(place)
    assert contents(place) == [b"a", b"b"]
    assert not take_back(job())


def test_at_the_end_of_a_run_what_snakemake_deleted_stays_kept(place):
    keep(job())
    delete_outputs(place)
    drop(place)
    assert take_back(job())


def test_unrecorded_work_leaves_its_place_so_that_its_job_starts_again(place):
    """A job that ended after Snakemake was killed: its outputs would look finished under whatever settings."""
    keep(job())
    assert displace(place) == ["results/a", "results/b"]
    assert contents(place) == []
    assert take_back(job())
    assert contents(place) == [b"a", b"b"]


def test_a_record_of_an_earlier_result_does_not_count(place):
    record(place, "results/a")
    record(place, "results/b")
    hour_ago = time.time() - 3600
    for path in (place / ".snakemake/metadata").iterdir():
        os.utime(path, (hour_ago, hour_ago))
    keep(job())
    assert displace(place) == ["results/a", "results/b"]


def test_work_whose_outputs_snakemake_deleted_waits_to_be_taken_back(place):
    """A group that failed: Snakemake records and deletes the outputs of all its jobs."""
    keep(job())
    for name in ("results/a", "results/b"):
        record(place, name)
    delete_outputs(place)
    assert displace(place) == []
    assert take_back(job())


def test_forgotten_work_and_rubbish_are_dropped(place):
    keep(job())
    delete_outputs(place)
    kept = next((place / "results/.kept").iterdir())
    old = time.time() - FORGOTTEN - 60
    os.utime(kept, (old, old))
    (place / "results/.kept/.partial-x").mkdir()
    (place / "results/.kept/rubbish").mkdir()
    (place / "results/.kept/rubbish/about.json").write_text("{")
    assert displace(place) == []
    assert list((place / "results/.kept").iterdir()) == []


def test_a_disk_without_links_gets_copies(place, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    keep(job())
    delete_outputs(place)
    assert take_back(job())
    assert contents(place) == [b"a", b"b"]


def test_a_failure_to_keep_is_no_failure_of_the_job(place):
    (place / "results/.kept").write_text("a file where the folder should be")
    keep(job())
    assert contents(place) == [b"a", b"b"]


def test_long_names_are_found_among_the_records(place):
    """Snakemake breaks the names of its records at 254 characters, each part but the last with an @."""
    name = "results/" + "/".join(["x" * 60] * 6)
    (place / name).parent.mkdir(parents=True)
    (place / name).write_bytes(b"long")
    keep(job(outputs=(name,)))
    text = urlsafe_b64encode(name.encode()).decode()
    assert 254 < len(text) <= 508
    folder = place / ".snakemake/metadata" / f"@{text[:254]}"
    folder.mkdir(parents=True)
    (folder / text[254:]).write_text(json.dumps({}))
    assert displace(place) == []
    assert (place / name).exists()
