"""A study whose results lie on a disk that fills up: one line says so, nothing is half-written, and it goes on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from collateral.pipeline.verify import verify
from smalldisk import mounted, remounted
from smallstudy import Project, make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path, tiny_folder) -> Iterator[Project]:
    """The small study with its results on a file system of 96 KiB in memory."""
    project = make_project(tmp_path / "study", tiny_folder)
    own = project.config["study"]
    project.configure(study={**own, "editors": ["noop", "rome"], "suites": []})
    with mounted(project.folder / "results", "size=96k"):
        yield project


def torn(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".partial")]


def test_a_disk_that_fills_up_stops_the_study_with_one_line_and_costs_nothing(small_disk):
    results = small_disk.folder / "results"
    made: set[Path] = set()
    for size in ("96k", "700k"):  # in the midst of the edits, and of the report
        remounted(results, f"size={size}")
        done = small_disk.snakemake("--keep-going")
        assert done.returncode != 0
        told = re.findall(r"ERROR: .*", done.stdout + done.stderr)
        assert told, done.stdout + done.stderr
        for line in told:
            assert re.search(
                r"results/\S+: the disk is full; free space on it and run the same command", line
            ), line
        assert "fault of the program" not in done.stdout + done.stderr
        assert torn(small_disk.folder) == []
        found = verify(small_disk.folder)
        assert found.files
        assert found.faults == ()
        now = {path for path in results.rglob("*.parquet") if ".kept" not in path.parts}
        assert made <= now  # what was finished stays
        made = now
    remounted(results, "size=64m")
    done = small_disk.snakemake()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert (results / "report/index.html").is_file()
    assert verify(small_disk.folder).faults == ()
    assert small_disk.planned() == set()
