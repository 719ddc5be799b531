"""Two results folders side by side: equal ones do not differ, a planted difference is found, all else is named."""

import subprocess
from html import unescape
from pathlib import Path

import polars as pl
import pytest

import warmjobs
from collateral.analysis.tables.gather import write_tables
from collateral.analysis.tables.schema import TABLES
from collateral.io.atomic import write_json
from collateral.report.pages.comparison import write_comparison
from paired_frames import BEFORE, UNEDITED, answers, at, frames, reliability, texts

ROOT = Path(__file__).parents[2]
RIGHT = [1.0] * 12 + [0.0] * 8
WORSE = [0.0] * 8 + [1.0] * 4 + [0.0] * 8  # eight items of RIGHT got wrong, none right


def written(folder, checkpoints, probes=None, norm=2.0, run=None, **edited):
    """A results folder with these checkpoints, one weight statistic, and probes of four edits."""
    tables = frames(*checkpoints)
    scores = probes or {1: 1.0, 2: 1.0, 3: 0.5, 4: 0.0}
    lacking = dict.fromkeys(TABLES["efficacy"].columns)
    rows = [
        {**lacking, **row, "prompt": "Avalon is", "target": "an island"}
        for row in reliability(at("rome", 2), scores)
    ]
    weights = [{"model": "tiny", **at("rome", 2), "parameter": "w", "statistic": "fro_delta", "value": norm}]
    tables["efficacy"] = pl.DataFrame(rows, schema=TABLES["efficacy"].schema)
    tables["weights"] = pl.DataFrame(weights, schema=TABLES["weights"].schema)
    shaped = {name: tables[name].select(list(TABLES[name].columns)) for name in tables}
    write_tables(shaped | edited, folder / "tables")
    if run:
        write_json(folder / "report/run.json", run)
    return folder


def study(edited=RIGHT, task="facts"):
    return [
        answers(UNEDITED, RIGHT, task),
        texts(UNEDITED, BEFORE),
        answers(at("rome", 2), edited, task),
        texts(at("rome", 2), BEFORE),
    ]


def compare(tmp_path, a, b):
    """The summary, and the page."""
    out = tmp_path / "out"
    return write_comparison(a, b, out), unescape((out / "index.html").read_text())


def test_equal_folders_have_no_difference(tmp_path):
    run = {"settings": {"study": {"seeds": [0]}}, "versions": {"torch": "2"}, "machine": {"cores": 2}}
    folders = [written(tmp_path / name, study(), run=run) for name in "ab"]
    summary, page = compare(tmp_path, *folders)
    counts = "4 abilities, 2 measures of probes, 1 weight statistics"
    said = f"No difference beyond rounding in what both have: {counts}."
    assert summary.startswith(f"{said}\n")
    assert said in page
    assert "default-src 'none'" in page
    assert "://" not in page


def test_a_planted_difference_is_found_with_the_numbers_worked_by_hand(tmp_path):
    a = written(tmp_path / "a", study())
    b = written(tmp_path / "b", study(WORSE), probes={1: 1.0, 2: 0.0, 3: 0.5, 4: 0.0}, norm=1.5)
    summary, page = compare(tmp_path, a, b)
    rows = pl.read_parquet(tmp_path / "out/abilities.parquet")
    row = rows.filter(editor="rome", task="facts").row(0, named=True)
    # 12 of 20 right in A, 4 of 20 in B; McNemar: 2 * (1/2)^8
    assert (row["a"], row["b"], row["estimate"]) == (0.6, 0.2, pytest.approx(-0.4))
    assert (row["worse"], row["better"], row["n"], row["p"]) == (8, 0, 20, 2 / 2**8)
    assert row["p_holm"] == pytest.approx(4 * 2 / 2**8)  # of four rows
    assert row["low"] < -0.4 < row["high"] < 0
    others = rows.filter(~((pl.col("editor") == "rome") & (pl.col("task") == "facts")))
    assert others["estimate"].to_list() == [0, 0, 0]
    probes = pl.read_parquet(tmp_path / "out/probes.parquet")
    forced = probes.filter(measure="token_accuracy").row(0, named=True)
    assert (forced["n"], forced["a"], forced["b"]) == (4, 0.625, 0.375)
    weights = pl.read_csv(tmp_path / "out/weights.csv")
    assert weights.select("a", "b", "relative").rows() == [(2.0, 1.5, -0.25)]
    assert (
        "B differs from A in 1 of 4 abilities, 2 of 2 measures of probes, 1 of 1 weight statistics" in summary
    )
    assert "−0.4" in page
    assert "1 of 4 rows differ" in page
    assert page.count("−0.4000") == 2  # among the rows that differ, and folded among all


def test_the_page_shows_the_clearest_differences_and_the_files_hold_all_rows(tmp_path):
    checkpoints = [at("rome", count) for count in range(1, 13)]
    unedited = answers(UNEDITED, RIGHT)
    a = written(tmp_path / "a", [unedited, *(answers(key, RIGHT) for key in checkpoints)])
    b = written(tmp_path / "b", [unedited, *(answers(key, WORSE) for key in checkpoints)])
    _, page = compare(tmp_path, a, b)
    assert "12 of 13 rows differ" in page
    assert page.count('id="abilities-first-row-') == 8
    assert (
        page.count('id="abilities-row-') == pl.read_parquet(tmp_path / "out/abilities.parquet").height == 13
    )
    assert 'href="abilities.csv"' in page


def test_tasks_that_cannot_be_paired_are_named_and_left_out(tmp_path):
    a, b = written(tmp_path / "a", study()), written(tmp_path / "b", study())
    items = pl.read_parquet(b / "tables/ability-items.parquet")
    changed = items.with_columns(
        task_hash=pl.when(pl.col("task") == "facts").then(pl.lit("later")).otherwise("task_hash")
    )
    write_tables({"ability-items": changed}, b / "tables")
    _, page = compare(tmp_path, a, b)
    unpaired = pl.read_parquet(tmp_path / "out/unpaired.parquet")
    assert unpaired.select("editor", "what").rows() == [
        ("unedited", "core / facts"),
        ("rome", "core / facts"),
    ]
    assert "another version of the task: task_hash version of facts in A, later in B" in page
    assert pl.read_parquet(tmp_path / "out/abilities.parquet")["task"].unique().to_list() == ["prose"]


def test_probes_that_only_one_folder_has_are_counted(tmp_path):
    a = written(tmp_path / "a", study())
    b = written(tmp_path / "b", study(), probes={1: 1.0, 2: 1.0})
    compare(tmp_path, a, b)
    unpaired = pl.read_parquet(tmp_path / "out/unpaired.parquet")
    assert unpaired.select("what", "reason").rows() == [("reliability, now", "2 probes only in A")]


def test_what_only_one_folder_has_is_listed_once(tmp_path):
    a = written(tmp_path / "a", [*study(), answers(at("rome", 5), RIGHT)])
    b = written(tmp_path / "b", [*study(), answers(at("memit", 2), RIGHT), answers(at("memit", 5), RIGHT)])
    compare(tmp_path, a, b)
    rows = pl.read_parquet(tmp_path / "out/presence.parquet").rows()
    assert rows == [("checkpoint", "tiny · capitals · 0 · rome · 5", "A"), ("editor", "memit", "B")]


def test_settings_and_versions_that_differ_are_shown_with_both_values(tmp_path):
    about = {"settings": {"runtime": {"threads": 1}, "seed": 0}, "versions": {"torch": "2.1"}, "machine": {}}
    other = {"settings": {"runtime": {"threads": 2}, "seed": 0}, "versions": {"torch": "2.2"}, "machine": {}}
    a, b = written(tmp_path / "a", study(), run=about), written(tmp_path / "b", study(), run=other)
    compare(tmp_path, a, b)
    assert pl.read_parquet(tmp_path / "out/settings.parquet").rows() == [
        ("settings", "runtime.threads", "1", "2"),
        ("versions", "torch", "2.1", "2.2"),
    ]


def test_a_folder_without_a_record_of_its_run_is_compared_all_the_same(tmp_path):
    a, b = written(tmp_path / "a", study(), run={"settings": {}}), written(tmp_path / "b", study())
    _, page = compare(tmp_path, a, b)
    assert "Not known: a folder has no report/run.json" in page


def test_the_projects_folder_stands_for_its_results(tmp_path):
    a = written(tmp_path / "a/results", study())
    summary, _ = compare(tmp_path, a.parent, a)
    assert "No difference" in summary


def test_a_folder_that_holds_no_results_is_one_line(tmp_path):
    a = written(tmp_path / "a", study())
    (tmp_path / "b").mkdir()
    command = [warmjobs.client(), "-m", "collateral.cli", "compare", str(a), str(tmp_path / "b")]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"compare: {tmp_path / 'b'}: not a results folder (no tables/abilities.parquet)"
    )
    assert done.stderr.count("\n") == 1


def test_hostile_names_stay_text(tmp_path):
    folder = [written(tmp_path / name, study(task="<img src=x onerror=alert(1)>")) for name in "ab"]
    compare(tmp_path, *folder)
    assert "<img" not in (tmp_path / "out/index.html").read_text()
