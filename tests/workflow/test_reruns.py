"""The rerun promises: what a change invalidates, as the set of jobs that a dry run plans."""

import os
import shutil

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

REPORT = {"Draw the report: results/report/index.html"}
INFERENCE = {"Infer what the tables show"} | REPORT
TABLES = {"Gather all results into tidy tables"} | INFERENCE


def hangs_on(editor, *edits):
    """The jobs of some checkpoints of an editor, without its edits."""
    texts = (
        "Probe all edits of {e} after {n} edits",
        "Measure the drift of {e} after {n} edits",
        "Weigh {e} after {n} edits",
        "Evaluate {e} after {n} edits on two",
    )
    return {text.format(e=editor, n=f"{n:04d}") for n in edits for text in texts}


def edits(editor, *numbers):
    return {f"Edit tiny with {editor} up to {n:04d} edits" for n in numbers}


def whole(editor, *numbers):
    return edits(editor, *numbers) | hangs_on(editor, *numbers)


def test_nothing_reruns_nothing(copy):
    assert copy.planned() == set()


def test_a_moved_and_touched_project_reruns_nothing(copy):
    for path in [
        *copy.folder.glob("workflow/**/*"),
        *copy.folder.glob("src/**/*.py"),
        copy.folder / "Snakefile",
    ]:
        os.utime(path)
    for path in copy.folder.glob("results/**/*.parquet"):
        os.utime(path)
    assert copy.planned() == set()


def test_comments_and_docstrings_rerun_nothing(copy):
    copy.edit(
        "src/collateral/methods/rome.py",
        "        keys = target.keys.float()",
        "        # of all contexts\n        keys = target.keys.float()",
    )
    copy.edit("src/collateral/regularizers.py", '"""Regularisers', '"""All regularisers')
    copy.edit("workflow/scripts/edit.py", '"""One link', '"""A link')
    copy.edit("workflow/rules/edit.smk", "# The chain", "# A chain")
    assert copy.planned() == set()


def test_keep_of_one_editor_reruns_its_chain_and_what_hangs_on_it(copy):
    editors = copy.config["editors"]
    editors["rome-rect"]["regularizer"]["keep"] = 20
    copy.configure(editors=editors)
    assert copy.planned() == whole("rome-rect", 1, 3) | TABLES


def test_a_formula_of_rome_reruns_the_rome_editors_only(copy):
    copy.edit("src/collateral/methods/rome.py", "target.delta, _REMEDY)", "2 * target.delta, _REMEDY)")
    assert copy.planned() == whole("rome", 1, 3) | whole("rome-rect", 1, 3) | TABLES


def test_a_formula_of_noop_reruns_noop_only(copy):
    copy.edit(
        "src/collateral/methods/noop.py",
        "return Edit(Delta(), dict(state), {})",
        "return Edit(Delta(), {}, {})",
    )
    assert copy.planned() == whole("noop", 1, 3) | TABLES


def test_a_new_editor_adds_only_its_jobs(copy):
    study = copy.config["study"]
    copy.configure(study={**study, "editors": [*study["editors"], "placebo"]})
    assert copy.planned() == whole("placebo", 1, 3) | TABLES


def test_an_editor_with_second_moments_prepares_only_its_layer(copy):
    study = copy.config["study"]
    copy.configure(study={**study, "editors": [*study["editors"], "rome-mom2"]})
    moment = {"Measure the second moment of layer 01 of tiny"}
    assert copy.planned() == moment | whole("rome-mom2", 1) | TABLES


def test_a_formula_of_an_adapter_reruns_its_measurements_too(copy):
    """An adapter's code takes part in every answer; the code that an editor of weights ran is in its deltas."""
    study = copy.config["study"]
    copy.configure(study={**study, "editors": [*study["editors"], "grace"]})
    assert copy.planned() == whole("grace", 1, 3) | TABLES
    copy.edit("src/collateral/codebook.py", "SLACK = 1e-3", "SLACK = 1e-2")
    assert copy.planned() == whole("grace", 1, 3) | TABLES


def test_editors_with_a_hypernetwork_share_its_training(copy):
    study = copy.config["study"]
    copy.configure(study={**study, "editors": [*study["editors"], "mend", "mend-rect"]})
    train = "Train the hypernetwork of mend for tiny"
    assert copy.planned() == {train} | whole("mend", 1) | whole("mend-rect", 1) | TABLES
    done = copy.snakemake("--until", "edit")
    assert done.returncode == 0, done.stdout + done.stderr
    left = hangs_on("mend", 1) | hangs_on("mend-rect", 1) | TABLES
    assert copy.planned() == left
    editors = copy.config["editors"]
    editors["mend-rect"]["regularizer"]["keep"] = 20
    editors["mend"]["checkpoints"] = [1, 3]  # a later checkpoint, another regularizer: nothing to learn anew
    copy.configure(editors=editors)
    assert copy.planned() == left | whole("mend", 3) | edits("mend-rect", 1)
    editors["mend-rect"]["settings"] = {"rank": 3}
    copy.configure(editors=editors)
    own = {"Train the hypernetwork of mend-rect for tiny"}
    assert copy.planned() == left | own | whole("mend", 3) | edits("mend-rect", 1)


def test_a_new_suite_evaluates_only_that_suite(copy):
    study = copy.config["study"]
    copy.configure(study={**study, "suites": ["two", "three"]})
    new = {
        f"Evaluate {editor} after {n:04d} edits on three" for editor in study["editors"] for n in (1, 3)
    } | {"Evaluate the unedited tiny on three"}
    assert copy.planned() == new | TABLES


def test_a_new_seed_adds_only_its_jobs(copy):
    copy.configure(study={**copy.config["study"], "seeds": [0, 1]})
    planned = copy.planned()
    assert "Draw the order of the edits of embedded, seed 1" in planned
    assert "Draw the order of the edits of embedded, seed 0" not in planned
    assert planned >= whole("rome", 1, 3) | TABLES  # the messages do not name the seed: count the jobs
    text = copy.snakemake("-n").stdout + copy.snakemake("-n").stderr
    assert "seed-0/rome/edits-0001/delta.parquet" not in [
        line.strip() for line in text.splitlines() if line.strip().startswith("output:")
    ]


def test_an_appended_checkpoint_adds_only_itself(copy):
    copy.configure(study={**copy.config["study"], "checkpoints": [1, 3, 5]})
    new = set()  # the unedited model was probed up to fact 5 already
    for editor in ("noop", "rome", "rome-rect"):
        new |= whole(editor, 5)
    assert copy.planned() == new | TABLES


def test_an_inserted_checkpoint_reruns_itself_and_the_later_ones(copy):
    copy.configure(study={**copy.config["study"], "checkpoints": [1, 2, 3]})
    new = set()
    for editor in ("noop", "rome", "rome-rect"):
        new |= whole(editor, 2, 3)
    assert copy.planned() == new | TABLES


def test_a_chart_or_caption_reruns_the_report_only(copy):
    copy.edit("src/collateral/pages.py", '"What the study cost"', '"What it cost"')
    assert copy.planned() == REPORT


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_the_look_of_a_page_reruns_the_report_only(copy, name):
    path = copy.folder / "src/collateral" / name
    path.write_text(path.read_text() + "\n/* another look */\n")
    assert copy.planned() == REPORT


def test_a_margin_reruns_the_inference_and_the_report(copy):
    copy.configure(inference={"margin": {"share": 0.03}})
    assert copy.planned() == INFERENCE


def test_a_threshold_reruns_weigh_and_report(copy):
    copy.configure(weights={"thresholds": [0.05, 0.171]})
    weigh = {f"Weigh {e} after {n:04d} edits" for e in ("noop", "rome", "rome-rect") for n in (1, 3)}
    assert copy.planned() == weigh | TABLES


def test_a_longer_text_reruns_the_drift_and_report(copy):
    copy.configure(drift={"tokens": 2048})
    drift = {
        f"Measure the drift of {e} after {n:04d} edits" for e in ("noop", "rome", "rome-rect") for n in (1, 3)
    }
    assert copy.planned() == drift | TABLES


def test_a_changed_task_item_reruns_its_suite(copy):
    path = copy.folder / "src/collateral/tasks/sentiment.jsonl"
    path.write_text(path.read_text() + "\n")
    evaluate = {
        f"Evaluate {e} after {n:04d} edits on two" for e in ("noop", "rome", "rome-rect") for n in (1, 3)
    }
    assert copy.planned() == evaluate | {"Evaluate the unedited tiny on two"} | TABLES


@pytest.mark.parametrize("limit", [1, 2])
def test_limit_and_batch_size_invalidate_the_evaluations(copy, limit):
    suites = copy.config["suites"]
    suites["two"] = {**suites["two"], "limit": limit, "batch_size": 4 if limit == 2 else 8}
    copy.configure(suites=suites)
    evaluate = {
        f"Evaluate {e} after {n:04d} edits on two" for e in ("noop", "rome", "rome-rect") for n in (1, 3)
    }
    assert copy.planned() == evaluate | {"Evaluate the unedited tiny on two"} | TABLES


def test_a_deleted_result_reruns_itself_and_what_hangs_on_it(copy):
    (copy.folder / "results/edited/tiny/embedded/seed-0/rome/edits-0003/weights.parquet").unlink()
    assert copy.planned() == {"Weigh rome after 0003 edits"} | TABLES


def test_a_deleted_checkpoint_reruns_from_there_on(copy):
    shutil.rmtree(copy.folder / "results/edited/tiny/embedded/seed-0/rome/edits-0003")
    assert copy.planned() == whole("rome", 3) | TABLES


def test_an_unused_key_reruns_nothing(copy):
    copy.configure(moments={"window": 64}, editors={**copy.config["editors"], "spare": {"method": "noop"}})
    assert copy.planned() <= REPORT  # the page shows the settings
