"""`make report` of what exists: a valid page that says what is missing, and no file that passes for a result."""

import os
import re
import shutil
import subprocess
from html import unescape

import polars as pl
import pytest

import warmjobs
from collateral.analysis.tables.schema import MEASURED
from collateral.io.parquet import write_table
from collateral.runtime.run_lock import hold_run
from collateral.study.command_line import find_task_folders, read_study
from collateral.study.jobs import list_jobs, list_outputs
from smallstudy import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CHAIN = "results/edited/tiny/embedded/seed-0"
PAGE = "results/partial/report/index.html"


def report_now(project):
    command = [warmjobs.client(), "-m", "collateral.cli", "report", "--configfile", "study.yaml"]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def missing_section(page):
    """The words of the page's list of what is missing."""
    section = re.search(r'<section id="missing".*?</section>', page, flags=re.DOTALL)
    assert section, "the page does not say what is missing"
    return " ".join(unescape(re.sub("<[^>]+>", " ", section[0])).split())


def test_each_gathered_table_has_the_columns_that_are_described(finished):
    folder = finished.folder / "results/tables"
    assert {path.stem for path in folder.glob("*.parquet")} >= MEASURED.keys()
    for name, table in MEASURED.items():
        frame = pl.read_parquet(folder / f"{name}.parquet")
        assert frame.schema == pl.Schema(table.schema), name
        assert pl.read_csv(folder / f"{name}.csv", infer_schema=False).columns == frame.columns, name


def test_costs_and_editors_are_those_of_the_study(finished):
    folder = finished.folder / "results/tables"
    costs = pl.read_parquet(folder / "costs.parquet")
    edits = costs.filter(rule="edit")
    assert edits.select("editor", "edits").sort("editor", "edits").rows() == [
        (editor, n) for editor in ("noop", "rome", "rome-rect") for n in (1, 3)
    ]
    first = finished.folder / CHAIN / "rome/edits-0001"
    size = sum((first / name).stat().st_size for name in ("delta.parquet", "state.safetensors"))
    assert edits.filter(editor="rome", edits=1)["bytes"].to_list() == [size]
    assert (edits["seconds"] > 0).all()
    assert costs.filter(rule="evaluate_unedited")["suite"].to_list() == ["two"]
    editors = pl.read_parquet(folder / "editors.parquet")
    assert editors.select("editor", "method", "regularizer", "keep").rows() == [
        ("noop", "noop", "none", None),
        ("rome", "rome", "none", None),
        ("rome-rect", "rome", "rect", 40.0),
    ]


def test_the_files_of_the_jobs_are_those_that_a_finished_study_has(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    study = read_study(finished.folder, finished.folder / "study.yaml", [])
    jobs = list_jobs(study, find_task_folders(study, finished.folder), None)
    told = {name for job in jobs for name in list_outputs(job) if name.startswith("results/")}
    there = {str(path.relative_to(finished.folder)) for path in finished.folder.glob("results/*ed/**/*.*")}
    there |= {
        name for name in told if name.startswith(("results/sequences", "results/tables", "results/report"))
    }
    assert told == {name for name in there if "/report/figures" not in name}


def test_a_study_with_gaps_has_a_report_that_names_them(copy):
    folder = copy.folder / CHAIN
    (folder / "rome/edits-0003/weights.parquet").unlink()
    (folder / "rome/edits-0001/abilities/two.json").unlink()
    (folder / "rome-rect/edits-0003/abilities/two.items.parquet").unlink()
    planned = copy.planned()
    before = copy.results()
    assert "without 3 of " in report_now(copy)
    page = (copy.folder / PAGE).read_text()
    said = missing_section(page)
    assert "weigh 5 of 6 tiny · embedded · seed 0 · rome: 3 edits" in said
    assert "evaluate_abilities 4 of 6 tiny · embedded · seed 0 · rome: 1 edits" in said
    assert "rome-rect: 3 edits" in said
    assert "noop" not in said
    scores = pl.read_parquet(copy.folder / "results/partial/tables/abilities.parquet")
    assert set(scores.select("editor", "edits").rows()) == {
        ("unedited", 0),
        ("noop", 1),
        ("noop", 3),
        ("rome", 3),
        ("rome-rect", 1),
    }
    assert copy.planned() == planned
    assert {name: own for name, own in copy.results().items() if not name.startswith("partial")} == before


@pytest.fixture(scope="module")
def damaged(finished, tmp_path_factory) -> Project:
    """A report of a study with two truncated results, and items of an older version of a task."""
    project = Project(tmp_path_factory.mktemp("damaged") / "study")
    shutil.copytree(finished.folder, project.folder, symlinks=True)
    whole = project.folder / CHAIN / "rome/edits-0003/efficacy.parquet"
    whole.write_bytes(whole.read_bytes()[:-40])
    scores = project.folder / CHAIN / "noop/edits-0001/abilities/two.json"
    scores.write_text(scores.read_text()[:200])
    old = project.folder / CHAIN / "rome/edits-0001/abilities/two.items.parquet"
    table = pl.read_parquet(old)
    write_table(table.with_columns(task_hash=pl.lit("of-old")), old)
    os.utime(old, (1, 1))
    report_now(project)
    return project


def test_a_truncated_result_is_named_and_left_out(damaged):
    said = missing_section((damaged.folder / PAGE).read_text())
    assert f"{CHAIN}/rome/edits-0003/efficacy.parquet: not readable" in said
    assert f"{CHAIN}/noop/edits-0001/abilities/two.json: not readable as an lm-eval result" in said
    probes = pl.read_parquet(damaged.folder / "results/partial/tables/efficacy.parquet")
    assert not probes.filter(editor="rome", when="now", edits=3).height
    assert probes.filter(editor="rome", when="now", edits=1).height


def test_items_of_an_older_version_of_a_task_are_left_out(damaged):
    said = missing_section((damaged.folder / PAGE).read_text())
    assert "two.items.parquet: scored on another version of the task" in said
    items = pl.read_parquet(damaged.folder / "results/partial/tables/ability-items.parquet")
    assert "of-old" not in items["task_hash"]


def test_a_running_study_has_a_report(copy):
    (copy.folder / "results/tables/abilities.parquet").unlink()
    with hold_run(copy.folder):
        report_now(copy)
    assert "gather 0 of 1" in missing_section((copy.folder / PAGE).read_text())


def test_a_finished_study_is_drawn_by_its_rule(copy):
    page = copy.folder / "results/report/index.html"
    page.write_text("old")
    assert "results/report/index.html" in report_now(copy)
    assert "<!doctype html>" in page.read_text()
    assert "Jobs without a result" not in missing_section(page.read_text())
    assert (copy.folder / "results/report/snakemake.html").is_file()
    assert not (copy.folder / "results/partial").exists()
