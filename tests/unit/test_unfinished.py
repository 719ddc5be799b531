"""A study of which nothing is there yet has a report that says so; what is missing is told in few words."""

import subprocess
import sys
from pathlib import Path

from collateral.io.atomic import write_json, write_text
from collateral.report.progress import CHECKED, find_missing_jobs, find_usable_results
from collateral.study import outputs as results
from collateral.study.command_line import read_study
from collateral.study.jobs import Job, list_outputs

ROOT = Path(__file__).parents[2]
KINDS = tuple(results.list_results(read_study(ROOT, None, [])))


def test_a_study_that_has_not_begun_has_a_page_that_says_so(tmp_path):
    (tmp_path / "results").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "collateral.cli", "report"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "results/partial/report/index.html").read_text()
    assert "What is missing" in page
    assert "download_model" in page
    assert not (tmp_path / "results/tables").exists()


def test_a_wrong_name_of_a_study_is_one_line(tmp_path):
    command = [sys.executable, "-m", "collateral.cli", "report", "--study", "labtop"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("report: unknown study 'labtop'; did you mean 'laptop'?")
    assert done.stderr.count("\n") == 1


def test_many_places_are_counted_and_few_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [
        Job("weigh", f"results/edited/m/d/seed-0/e{n}/edits-0001/weights.parquet", "m", "d", 0, f"e{n}", 0, 1)
        for n in range(9)
    ]
    for name in list_outputs(jobs[0]):
        write_text(Path(name), "x")
    (told,) = find_missing_jobs(jobs, {})
    assert (told["rule"], told["done"], told["of"]) == ("weigh", 1, 9)
    assert told["where"].startswith("m · d · seed 0 · e1: 1 edits; m · d · seed 0 · e2: 1 edits; ")
    assert told["where"].endswith("; and 2 more")


def test_a_job_is_done_only_with_all_its_files_and_none_of_them_broken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job("weigh", "a/weights.parquet", "m", "d", 0, "e", 0, 1)
    write_text(Path("a/weights.parquet"), "x")
    assert find_missing_jobs([job], {})
    write_text(Path("a/heatmap.parquet"), "x")
    assert not find_missing_jobs([job], {})
    assert (
        "a/heatmap.parquet: too short"
        in find_missing_jobs([job], {"a/heatmap.parquet": "too short"})[0]["where"]
    )


def test_a_score_without_its_items_does_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = "results/unedited/m/abilities/two.json"
    write_json(Path(path), {"results": {}, "n-samples": {}, "higher_is_better": {}})
    expected = {**{kind: [] for kind in KINDS}, "abilities": [path]}
    assert find_usable_results(expected).paths["abilities"] == []
    assert find_usable_results(expected).broken == {}


def test_each_kind_of_result_is_checked_before_it_is_taken():
    assert set(KINDS) == set(CHECKED)
