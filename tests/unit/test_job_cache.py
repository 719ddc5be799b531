"""Finished work that is kept: taken back by the same job and no other, dropped once it is recorded."""

import os
import time

import pytest

from collateral.runtime.job_cache import (
    FORGOTTEN,
    displace_outputs,
    drop_finished,
    drop_recorded,
    hash_names,
    keep,
    make_claim,
    take_back,
)


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
    return make_claim("edit", ["in.parquet"], outputs, params or {"recipe": {"lr": 0.5}, "code": "c0de"})


def delete_outputs(place):
    for name in ("a", "b"):
        (place / f"results/{name}").unlink()


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
    drop_recorded({hash_names(["results/b", "results/a"])})
    assert displace_outputs(place) == []
    assert contents(place) == [b"a", b"b"]
    assert (place / "results/a").stat().st_nlink == 1


def test_what_another_job_has_recorded_drops_nothing(place):
    keep(job())
    drop_recorded({hash_names(["results/a"])})
    delete_outputs(place)
    assert take_back(job())


def test_at_the_end_of_a_run_what_is_in_place_is_dropped(place):
    """Whatever the clocks of the machines say: a run that ends has recorded its jobs."""
    keep(job())
    drop_finished(place)
    assert contents(place) == [b"a", b"b"]
    assert not take_back(job())


def test_at_the_end_of_a_run_what_snakemake_deleted_stays_kept(place):
    keep(job())
    delete_outputs(place)
    drop_finished(place)
    assert take_back(job())


def test_unrecorded_work_leaves_its_place_so_that_its_job_starts_again(place):
    """A job that ended after Snakemake was killed: its outputs would look finished under whatever settings."""
    keep(job())
    assert displace_outputs(place) == ["results/a", "results/b"]
    assert contents(place) == []
    assert take_back(job())
    assert contents(place) == [b"a", b"b"]


def test_work_whose_outputs_snakemake_deleted_waits_to_be_taken_back(place):
    """A group that failed: Snakemake deletes the outputs of all its jobs."""
    keep(job())
    delete_outputs(place)
    assert displace_outputs(place) == []
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
    assert displace_outputs(place) == []
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
