"""The rerun promises: what a change invalidates, as the set of jobs that a dry run plans."""

import ast
import os
import random
import shutil

import pytest
import yaml

from rewording import recompute, reword, said_texts
from smallstudy import make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

REPORT = {"Draw the report: results/report/index.html"}
INFERENCE = {"Infer what the tables show"} | REPORT
TABLES = {"Gather all results into tidy tables"} | INFERENCE


EDITORS = ("noop", "rome", "rome-rect")
EVALUATIONS = {f"Evaluate {e} after {n:04d} edits on two" for e in EDITORS for n in (1, 3)} | {
    "Evaluate the unedited tiny on two"
}


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
        "src/collateral/editing/methods/rome.py",
        "        keys = target.keys.float()",
        "        # of all contexts\n        keys = target.keys.float()",
    )
    copy.edit("src/collateral/editing/regularizers/rect.py", '"""RECT:', '"""RECT, a mask:')
    copy.edit("workflow/scripts/edit.py", '"""One link', '"""A link')
    copy.edit("workflow/rules/edit.smk", "# The chain", "# A chain")
    assert copy.planned() == set()


PACKAGE = "src/collateral"


@pytest.mark.parametrize("file", ["data/download/mirror.py", "models/device_map.py"])
def test_messages_rerun_nothing(copy, file):
    path = copy.folder / PACKAGE / file
    path.write_text(reword(path.read_text()))
    assert copy.planned() == set()


def test_a_range_of_a_setting_reruns_nothing(copy):
    copy.edit(
        f"{PACKAGE}/editing/methods/rome.py", "Annotated[float, Above(0)]", "Annotated[float, Above(0.001)]"
    )
    assert copy.planned() == set()


@pytest.mark.parametrize(
    "folder", ["editing/methods", "editing/regularizers", "models/families", "data/loaders"]
)
def test_a_new_entry_of_a_registry_reruns_nothing(copy, folder):
    entries = sorted((copy.folder / PACKAGE / folder).glob("[a-z]*.py"))
    entry = next(path for path in entries if path.stem in {"ft", "prune", "gpt2", "zsre"})
    shutil.copy(entry, entry.with_name("newcomer.py"))
    assert copy.planned() == set()


def test_a_rate_of_the_planner_reruns_nothing(copy):
    folder = copy.folder / PACKAGE / "study/cost"
    for path in folder.glob("[a-z]*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                node.value *= 2
        path.write_text(ast.unparse(tree))
    assert copy.planned() == set()


@pytest.mark.parametrize("seed", [0, 1])
def test_messages_and_entries_anywhere_rerun_nothing(copy, seed):
    """Five messages and two entries of registries, chosen at random from the package."""
    rng = random.Random(seed)
    package = copy.folder / PACKAGE
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py")) if path.parts[-2] != "cli"}
    speaking = [path for path, text in texts.items() if said_texts(ast.parse(text))]
    for path in rng.sample(speaking, 5):
        path.write_text(reword(texts[path], seed))
    folders = ["editing/methods", "editing/regularizers", "models/families", "data/loaders"]
    for folder in rng.sample(folders, 2):
        entries = sorted(path for path in (package / folder).glob("[a-z]*.py") if path.stem != "registry")
        shutil.copy(rng.choice(entries), package / folder / "newcomer.py")
    assert copy.planned() == set()


def test_a_moved_module_reruns_nothing(copy):
    """Of each package that computes, one module gets another name and folder."""
    moves = {
        "deltas/replay": "deltas/applied/chain",
        "data/edit_order": "data/order_of_edits",
        "evaluation/weights/spectra": "evaluation/singular_values",
        "models/tokenization": "models/text/tokens_of_text",
    }
    package = copy.folder / PACKAGE
    for old, new in moves.items():
        target = package / f"{new}.py"
        target.parent.mkdir(exist_ok=True)
        (target.parent / "__init__.py").touch()
        (package / f"{old}.py").rename(target)
    for path in [*package.rglob("*.py"), *copy.folder.glob("workflow/**/*.*")]:
        text = path.read_text()
        for old, new in moves.items():
            text = text.replace(f"collateral.{old.replace('/', '.')}", f"collateral.{new.replace('/', '.')}")
        path.write_text(text)
    assert copy.planned() == set()


REFERENCES = {f"Probe the unedited tiny on the facts up to number {n:04d}" for n in (1, 2, 5)}
WEIGHED = {f"Weigh {e} after {n:04d} edits" for e in EDITORS for n in (1, 3)}
DRIFT = {f"Measure the drift of {e} after {n:04d} edits" for e in EDITORS for n in (1, 3)}
CHAINS = set.union(*(whole(editor, 1, 3) for editor in EDITORS))
ORDER = {"Draw the order of the edits of embedded, seed 0"}
CONTEXTS = {"Sample context templates from tiny"}
FORMULAS = {
    ("data/edit_order.py", "permutation"): ORDER | REFERENCES | CHAINS | TABLES,
    ("models/language_model.py", "load_model"): CONTEXTS | REFERENCES | CHAINS | EVALUATIONS | TABLES,
    ("deltas/replay.py", "replay"): WEIGHED | TABLES,
    ("editing/session.py", "run_link"): CHAINS | TABLES,
    ("editing/prepare/context_templates.py", "sample_templates"): CONTEXTS | CHAINS | TABLES,
    ("pipeline/edit_chain.py", "edit_link"): CHAINS | TABLES,
    ("evaluation/drift.py", "measure_drift"): DRIFT | TABLES,
    ("evaluation/harness.py", "evaluate"): EVALUATIONS | TABLES,
    ("evaluation/weights/spectra.py", "stable_rank"): WEIGHED | TABLES,
    ("tasks/registry.py", "load_tasks"): EVALUATIONS | TABLES,
    ("tasks/registry.py", "suite_metadata"): TABLES,
    ("analysis/tables/costs.py", "collect_costs"): TABLES,
    ("analysis/statistics/retention.py", "measure_retention"): INFERENCE,
    ("report/charts/rows.py", ""): REPORT,
    ("study/cost/estimate.py", ""): set(),
    ("runtime/job.py", "job"): set(),
}


@pytest.mark.parametrize(("file", "name"), FORMULAS)
def test_a_formula_reruns_what_it_decides(copy, file, name):
    """One row at least for each package; without a name it is the file's first function."""
    path = copy.folder / PACKAGE / file
    text = path.read_text()
    functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    path.write_text(recompute(text, name or functions[0]))
    assert copy.planned() == FORMULAS[file, name]


def test_keep_of_one_editor_reruns_its_chain_and_what_hangs_on_it(copy):
    editors = copy.config["editors"]
    editors["rome-rect"]["regularizer"]["keep"] = 20
    copy.configure(editors=editors)
    assert copy.planned() == whole("rome-rect", 1, 3) | TABLES


def test_a_formula_of_rome_reruns_the_rome_editors_only(copy):
    copy.edit(
        "src/collateral/editing/methods/rome.py", "target.delta, _REMEDY)", "2 * target.delta, _REMEDY)"
    )
    assert copy.planned() == whole("rome", 1, 3) | whole("rome-rect", 1, 3) | TABLES


def test_a_formula_of_rect_reruns_the_editors_with_rect_only(copy):
    copy.edit(
        "src/collateral/editing/regularizers/rect.py",
        "return select_largest(score, self.keep)",
        "return select_largest(2 * score, self.keep)",
    )
    assert copy.planned() == whole("rome-rect", 1, 3) | TABLES


def test_a_formula_of_noop_reruns_noop_only(copy):
    copy.edit(
        "src/collateral/editing/methods/noop.py",
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
    moment = {"Measure the second moments of tiny, layers 01"}
    assert copy.planned() == moment | whole("rome-mom2", 1) | TABLES


def test_a_formula_of_an_adapter_reruns_its_measurements_too(copy):
    """An adapter's code takes part in every answer; the code that an editor of weights ran is in its deltas."""
    study = copy.config["study"]
    copy.configure(study={**study, "editors": [*study["editors"], "grace"]})
    assert copy.planned() == whole("grace", 1, 3) | TABLES
    copy.edit("src/collateral/editing/algorithms/codebook.py", "SLACK = 1e-3", "SLACK = 1e-2")
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
    planned = copy.planned_jobs()
    chains = set.union(*(whole(editor, 1, 3) for editor in EDITORS))
    prepared = {"Draw the order of the edits of embedded, seed 1"}
    prepared |= {f"Probe the unedited tiny on the facts up to number {n:04d}" for n in (1, 2, 5)}
    assert set(planned) == chains | prepared | TABLES
    assert len(planned) == len(set(planned))  # each once: of the new seed alone


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
    copy.edit("src/collateral/report/pages/pages.py", '"What the study cost"', '"What it cost"')
    assert copy.planned() == REPORT


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_the_look_of_a_page_reruns_the_report_only(copy, name):
    path = copy.folder / PACKAGE / "report/pages" / name
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
    assert copy.planned() == EVALUATIONS | TABLES


@pytest.mark.parametrize("limit", [1, 2])
def test_limit_and_batch_size_invalidate_the_evaluations(copy, limit):
    suites = copy.config["suites"]
    suites["two"] = {**suites["two"], "limit": limit, "batch_size": 4 if limit == 2 else 8}
    copy.configure(suites=suites)
    assert copy.planned() == EVALUATIONS | TABLES


def test_a_deleted_result_reruns_itself_and_what_hangs_on_it(copy):
    (copy.folder / "results/edited/tiny/embedded/seed-0/rome/edits-0003/weights.parquet").unlink()
    assert copy.planned() == {"Weigh rome after 0003 edits"} | TABLES


def test_a_deleted_checkpoint_reruns_from_there_on(copy):
    shutil.rmtree(copy.folder / "results/edited/tiny/embedded/seed-0/rome/edits-0003")
    assert copy.planned() == whole("rome", 3) | TABLES


def test_an_unused_key_reruns_nothing(copy):
    copy.configure(moments={"window": 64}, editors={**copy.config["editors"], "spare": {"method": "noop"}})
    assert copy.planned() <= REPORT  # the page shows the settings


def test_keys_in_another_order_rerun_nothing(copy):
    def turned(value):
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    before = copy.config
    copy.configure(**{name: turned(before[name]) for name in before})
    text = (copy.folder / "study.yaml").read_text()
    assert text != yaml.safe_dump(before, sort_keys=False)
    assert copy.planned() == set()


def test_another_branch_and_back_reruns_nothing(copy):
    path = copy.folder / "src/collateral/editing/methods/rome.py"
    text = path.read_text()
    copy.edit(
        "src/collateral/editing/methods/rome.py", "target.delta, _REMEDY)", "2 * target.delta, _REMEDY)"
    )
    assert copy.planned() != set()
    path.write_text(text)
    assert copy.planned() == set()


def test_a_new_clone_with_the_old_results_reruns_nothing(copy, tiny_folder, tmp_path):
    clone = make_project(tmp_path / "clone", tiny_folder)
    for part in ("results", "resources/models", "resources/datasets", ".snakemake"):
        shutil.copytree(copy.folder / part, clone.folder / part, symlinks=True, dirs_exist_ok=True)
    assert clone.planned() == set()


def test_a_prompt_s_text_reruns_its_suite(copy):
    path = copy.folder / "src/collateral/tasks/sentiment.yaml"
    text = path.read_text()
    path.write_text(text.replace('"{{text}}"', '"Review: {{text}}"'))
    assert path.read_text() != text
    assert copy.planned() == EVALUATIONS | TABLES


def test_context_templates_rerun_what_reads_them(copy):
    copy.configure(contexts={"lengths": [[4, 3]]})
    edited = set.union(*(whole(editor, 1, 3) for editor in EDITORS))
    assert copy.planned() == {"Sample context templates from tiny"} | edited | TABLES


def test_the_budget_of_second_moments_reruns_them_and_their_editors(copy):
    """An editor that uses them is added first, and brought to its delta."""
    study = {**copy.config["study"], "editors": ["noop", "rome", "rome-rect", "rome-mom2"]}
    copy.configure(study=study, moments={"tokens": 640, "window": 16})
    delta = "results/edited/tiny/embedded/seed-0/rome-mom2/edits-0001/delta.parquet"
    done = copy.snakemake("--", delta)
    assert done.returncode == 0, done.stderr[-3000:]
    assert copy.planned() == hangs_on("rome-mom2", 1) | TABLES
    copy.configure(study={**study, "editors": [*study["editors"], "memit"]})
    other = {"Measure the second moments of tiny, layers 01-02"} | whole("memit", 1)
    assert (
        copy.planned() == hangs_on("rome-mom2", 1) | other | TABLES
    )  # with another set of layers: layer 01 stays
    copy.configure(study=study, moments={"tokens": 1280, "window": 16})
    own = {"Measure the second moments of tiny, layers 01"} | whole("rome-mom2", 1)
    assert copy.planned() == own | TABLES


@pytest.mark.parametrize("part", [{"models": {"dtype": "bfloat16"}}, {"runtime": {"threads": 2}}])
def test_dtype_and_threads_rerun_all_that_computes_with_the_model(copy, part):
    models = copy.config["models"]
    copy.configure(
        models={"tiny": {**models["tiny"], **part.get("models", {})}},
        **{name: value for name, value in part.items() if name != "models"},
    )
    computed = set.union(*(whole(editor, 1, 3) for editor in EDITORS)) | EVALUATIONS
    computed |= {"Sample context templates from tiny"}
    computed |= {f"Probe the unedited tiny on the facts up to number {n:04d}" for n in (1, 2, 5)}
    assert copy.planned() == computed | TABLES


def test_an_upgraded_library_reruns_what_imports_it_only_if_asked(copy):
    """The version is that of a package's metadata in front of the installed ones."""
    sequence = "results/sequences/embedded/seed-0.parquet"

    def upgrade(name):
        folder = copy.folder / f"src/{name.replace('-', '_')}-99.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")

    upgrade("transformers")
    assert copy.planned() == set()
    copy.configure(runtime={"rerun_on_upgrade": True})
    done = copy.snakemake("--", sequence)
    assert done.returncode == 0, done.stderr[-3000:]
    assert copy.planned("--", sequence) == set()
    upgrade("lm-eval")
    assert copy.planned("--", sequence) == set()
    upgrade("polars")
    assert copy.planned("--", sequence) == {"Draw the order of the edits of embedded, seed 0"}
    upgrade("pyarrow")
    read = {"Read the facts of embedded", "Draw the order of the edits of embedded, seed 0"}
    assert copy.planned("--", sequence) == read


def test_one_stage_alone_is_a_target(copy):
    for name in ("weights.parquet", "drift.parquet"):
        for path in copy.folder.glob(f"results/edited/tiny/embedded/seed-0/*/edits-*/{name}"):
            path.unlink()
    weigh = {f"Weigh {e} after {n:04d} edits" for e in EDITORS for n in (1, 3)}
    drift = {f"Measure the drift of {e} after {n:04d} edits" for e in EDITORS for n in (1, 3)}
    assert copy.planned("--", "weigh_all") == weigh | {"All checkpoints are weighed"}
    assert copy.planned("--", "drift_all") == drift | {"All checkpoints' drift is measured"}
    done = {
        "edit_all": "All edits are made",
        "probe_all": "All edits are probed",
        "evaluate_all": "All checkpoints are evaluated",
    }
    for name, said in done.items():
        assert copy.planned("--", name) <= {said}
    assert copy.planned("--forcerun", "report", "--", "report") >= REPORT


def test_why_names_what_would_be_rebuilt_and_its_causes(copy):
    weights = "results/edited/tiny/embedded/seed-0/rome-rect/edits-0003/weights.parquet"
    assert copy.why(weights) == f"{weights}: nothing would be rebuilt\n"
    raw = (copy.folder / weights).read_bytes()
    (copy.folder / weights).unlink()
    assert f"missing: {weights}" in copy.why(weights)
    (copy.folder / weights).write_bytes(raw)
    editors = copy.config["editors"]
    editors["rome-rect"]["regularizer"]["keep"] = 20
    copy.configure(editors=editors)
    copy.edit(
        "src/collateral/editing/methods/rome.py", "target.delta, _REMEDY)", "2 * target.delta, _REMEDY)"
    )
    begins, follows = copy.why(weights).split("What follows from it:")
    assert "Edit tiny with rome-rect up to 0001 edits" in begins
    assert "its code changed: collateral.editing.methods.rome" in begins
    assert "settings changed: regularizer.keep: 40 → 20" in begins
    assert "0003" not in begins
    assert "Weigh rome-rect after 0003 edits" in follows
    assert "an input is rebuilt: results/edited/tiny/embedded/seed-0/rome-rect/edits-0001" in follows
