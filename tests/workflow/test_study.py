"""The small study from nothing to the report, and what it promises about its files."""

import json
import math
import re

import polars as pl
import pytest

from collateral.io.atomic import read_sealed_json
from smallstudy import make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def checkpoint(project, editor, edits):
    return project.folder / f"results/edited/tiny/embedded/seed-0/{editor}/edits-{edits:04d}"


def test_report_tables_and_figures_are_there(finished):
    results = finished.folder / "results"
    report = {path.name for path in (results / "report").iterdir()} - {".snakemake_timestamp"}
    pages = {f"{name}.html" for name in ("index", "abilities", "edits", "weights", "cost")}
    assert report == pages | {"run.json"}
    assert "Manhattan" in (results / "report/weights.html").read_text()
    run = read_sealed_json(results / "report/run.json")
    assert set(run) == {"settings", "versions", "hashes", "machine", "missing", "checkpoints"}
    assert run["missing"] == []
    assert "results/tables/abilities.parquet" in run["hashes"]
    tables = {path.stem: pl.read_parquet(path) for path in (results / "tables").glob("*.parquet")}
    assert set(tables) == {
        "abilities",
        "ability-items",
        "collapses",
        "efficacy",
        "edits",
        "weights",
        "drift",
        "heatmaps",
        "known",
        "single-weights",
        "objectives",
        "costs",
        "libraries",
        "editors",
        "comparisons",
        "normalised",
        "horizons",
        "retention",
        "tradeoffs",
        "areas",
        "predictors",
    }
    points = set(tables["abilities"].select("editor", "edits").unique().rows())
    edited = {(editor, edits) for editor in ("noop", "rome", "rome-rect") for edits in (1, 3)}
    assert points == edited | {("unedited", 0)}
    figures = {path.suffix for path in (results / "figures").glob("*/[a-z]*")}
    assert figures == {".csv", ".svg", ".png", ".rst"}


def test_noop_equals_the_unedited_model_exactly(finished):
    """The check of the whole machine: every ability and every probe, at every checkpoint, to the last bit."""
    tables = finished.folder / "results/tables"
    key = ["suite", "task", "metric"]
    for name, columns in (("abilities", ["value", "stderr", "n"]), ("ability-items", ["score", "weight"])):
        by = [*key, "doc_id"] if name == "ability-items" else key
        table = pl.read_parquet(tables / f"{name}.parquet")
        reference = table.filter(editor="unedited").select(*by, *columns).sort(by)
        assert reference.height > 0
        for edits in (1, 3):
            mine = table.filter(editor="noop", edits=edits).select(*by, *columns).sort(by)
            assert mine.equals(reference), f"{name} after {edits} edits"
    efficacy = pl.read_parquet(tables / "efficacy.parquet")
    probe = ["fact_id", "kind", "probe"]
    numbers = [
        c for c in efficacy.columns if c not in {"editor", "edits", "when", "seed", "dataset", "model"}
    ]
    before = efficacy.filter(editor="unedited", when="before").select(numbers).sort(probe)
    assert before.select("fact_id").n_unique() == 3
    now = efficacy.filter(editor="noop", edits=3, when="now").select(numbers).sort(probe)
    assert now.equals(before)
    after = efficacy.filter(editor="noop", when="after_edit").select(numbers).sort(probe)
    assert after.equals(before)
    drift = pl.read_parquet(tables / "drift.parquet").filter(editor="noop")
    assert drift.height == 2 * 4
    for statistic, value in drift.select("statistic", "value").iter_rows():
        assert value == (1.0 if statistic == "activation_norm_ratio" else 0.0)


def test_the_perplexity_of_each_edit_target_is_that_of_the_unedited_model(finished):
    tables = finished.folder / "results/tables"
    objectives = pl.read_parquet(tables / "objectives.parquet").sort("position")
    before = (
        pl.read_parquet(tables / "efficacy.parquet")
        .filter(when="before", kind="reliability")
        .sort("position")
    )
    assert objectives["fact_id"].to_list()[:3] == before["fact_id"].to_list()
    assert objectives["perplexity"].to_list()[:3] == pytest.approx(
        [math.exp(nll) for nll in before["nll_target"]]
    )
    assert set(objectives["question_type"]) == {"completion"}


def test_an_edit_changes_the_model_and_a_mask_thins_it(finished):
    weights = pl.read_parquet(finished.folder / "results/tables/weights.parquet")
    shares = dict(weights.filter(statistic="nonzero_share", edits=1).select("editor", "value").rows())
    changed = {editor: shares[editor] * 32 * 64 for editor in ("noop", "rome", "rome-rect")}
    assert changed == {"noop": 0, "rome": 32 * 64, "rome-rect": -(-40 * 32 * 64 // 100)}
    manhattan = weights.filter(statistic="manhattan", edits=1).select("editor", "value")
    by_editor = dict(manhattan.rows())
    assert by_editor["noop"] == 0
    assert 0 < by_editor["rome-rect"] < by_editor["rome"]


def test_lm_eval_result_keeps_its_own_schema(finished):
    result = json.loads((checkpoint(finished, "rome", 3) / "abilities/two.json").read_text())
    assert {"results", "configs", "versions", "n-samples", "higher_is_better", "task_hashes"} <= set(result)
    assert "acc,none" in result["results"]["embedded-sentiment"]
    assert "word_perplexity,none" in result["results"]["embedded-english"]


def test_an_adapter_runs_to_the_report(copy):
    """Its weights stay, its edits are measured where its codebook is attached, and the page says so."""
    copy.configure(study={**copy.config["study"], "editors": ["noop", "grace"]})
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    tables = copy.folder / "results/tables"
    efficacy = pl.read_parquet(tables / "efficacy.parquet").filter(kind="reliability")
    probe = ["fact_id", "probe"]

    def likelihoods(editor, when, edits):
        return efficacy.filter(editor=editor, when=when, edits=edits).sort(probe)["nll_target"]

    assert (likelihoods("grace", "now", 3) < likelihoods("noop", "now", 3)).all()
    abilities = pl.read_parquet(tables / "abilities.parquet").filter(edits=3).sort("task", "metric")
    values = [abilities.filter(editor=editor)["value"].to_list() for editor in ("grace", "noop")]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    page = (copy.folder / "results/report/weights.html").read_text()
    assert "grace changes no weight: its edits live in a codebook of 3 keys" in page
    refused = copy.snakemake("--", "results/edited/tiny/embedded/seed-0/grace/edits-0003/exported")
    assert refused.returncode != 0
    assert (
        "grace changes no weight, so that there is no edited model to save" in refused.stdout + refused.stderr
    )


def test_a_second_run_does_nothing_and_says_so(finished):
    done = finished.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_chain_in_two_goes_on_one_core_has_the_same_bytes(finished, tmp_path, tiny_folder):
    """Number of cores, and a kill of the engine in the middle, change no byte of any artifact."""
    project = make_project(tmp_path / "again", tiny_folder)
    folder = "results/edited/tiny/embedded/seed-0/rome/edits-0003"
    first = project.snakemake("--", f"{folder}/delta.parquet", cores=1)
    assert first.returncode == 0
    victim = checkpoint(project, "rome", 1)
    for path in victim.iterdir():
        path.unlink()  # as if the job had been killed before its rename
    wanted = [f"{folder}/{name}" for name in ("efficacy.parquet", "weights.parquet", "abilities/two.json")]
    assert project.snakemake("--", *wanted, cores=1).returncode == 0
    mine, whole = project.results(), finished.results()
    assert {f"edited/tiny/embedded/seed-0/rome/edits-{n}/delta.parquet" for n in ("0001", "0003")} <= set(
        mine
    )
    assert mine == {name: whole[name] for name in mine}


def test_snakemake_report(finished):
    done = finished.snakemake("--report", "snakemake.html")
    assert done.returncode == 0, done.stderr
    text = (finished.folder / "snakemake.html").read_text()
    assert re.search(r'"category": ?"weights"|"weights": ?\{', text)
    assert "heatmaps" in text
    # the caption of a figure, from the data
    assert "Where the weights change: mean |ΔW| of each block" in text.replace("\\u0394", "Δ")


def test_lint_finds_nothing(finished):
    done = finished.snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sutdy": {}}, "unknown key of the top level: 'sutdy'; did you mean 'study'?"),
        ({"study": {"checkpoints": [3, 1]}}, "1 follows 3; checkpoints must increase"),
        ({"study": {"editors": ["rom"]}}, "did you mean 'rome'"),
        ({"datasets": {"embedded": {"path": "nowhere"}}}, "the path nowhere exists neither here nor in"),
    ],
)
def test_a_bad_config_stops_before_anything_starts(copy, change, message):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in copy.folder.glob("results/**/*")}

    before = stamps()
    old = copy.config
    copy.configure(**{name: {**old.get(name, {}), **value} for name, value in change.items()})
    if "datasets" in change:
        merged = {"embedded": {**old["datasets"]["embedded"], **change["datasets"]["embedded"]}}
        copy.configure(datasets=merged)
    done = copy.snakemake()
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert stamps() == before


def test_a_corrupt_delta_stops_its_readers_with_one_line_and_leaves_the_rest(copy):
    before = copy.results()
    delta = checkpoint(copy, "rome", 1) / "delta.parquet"
    delta.write_bytes(delta.read_bytes()[:-50])
    done = copy.snakemake()
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR:")]
    assert lines
    assert all("rome/edits-0001/delta.parquet: not readable as a delta" in line for line in lines)
    assert all("delete it and run the workflow again" in line for line in lines)
    kept = copy.results()
    assert {name for name in before if "rome/" not in name and "tables" not in name} <= set(kept)
    delta.unlink()
    assert copy.snakemake().returncode == 0
    assert copy.results() == before


def test_too_many_edits_for_the_data_set_is_one_line(copy):
    copy.configure(
        datasets={**copy.config["datasets"], "embedded": {**copy.config["datasets"]["embedded"], "limit": 2}}
    )
    done = copy.snakemake("--until", "measure_reference")
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert re.search(r"ERROR: .*3 edits are asked for, but only 2 facts are in the sequence", text)
