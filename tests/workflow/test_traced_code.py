"""The fingerprint is safe: what runs in a job is among the definitions that decide whether it runs again."""

import ast
import functools
import json
import shutil

import pytest

import warmjobs
from smallstudy import make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# functions that only messages call: arguments of exceptions, of log lines and of progress bars
SAID = frozenset({})
EDITORS = ["noop", "rome", "rome-rect", "memit", "placebo", "grace", "mend"]


@pytest.fixture(scope="module")
def traced(tmp_path_factory, tiny_folder):
    """The small study with all its editors, each job under a tracer: its project, and what ran in each job."""
    project = make_project(tmp_path_factory.mktemp("traced"), tiny_folder)
    project.configure(
        study={**project.config["study"], "editors": EDITORS},
        moments={"tokens": 640, "window": 16},
    )
    folder = tmp_path_factory.mktemp("ran")
    done = project.snakemake(**{warmjobs.TRACED: str(folder)})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return project, [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@functools.cache
def spans(path):
    """First line, last line and name of each top-level definition of a file."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", []))])
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        name = getattr(targets[0], "name", getattr(targets[0], "id", "<effects>"))
        found.append((first, node.end_lineno, name))
    return found


def definition_at(path, line):
    """The top-level definition of a file that a line belongs to."""
    return next(name for first, last, name in spans(path) if first <= line <= last)


def test_every_function_that_runs_in_a_job_is_in_its_fingerprint(traced):
    project, jobs = traced
    package = project.folder / "src/collateral"
    ledger = json.loads((project.folder / ".snakemake/collateral.code.json").read_text())
    rules = {job["rule"] for job in jobs}
    assert rules >= {
        *("download_model", "load_facts", "sample_sequence", "sample_contexts", "measure_moments"),
        *("measure_reference", "train_hypernetwork", "edit", "measure_efficacy", "measure_drift", "weigh"),
        *("evaluate_unedited", "evaluate_abilities", "gather", "infer", "report"),
    }
    missing = set()
    for job in jobs:
        assert len(job["ran"]) > 3
        known = ledger[job["code"].split()[0]]
        for file, line, name in job["ran"]:
            if file.startswith("runtime/"):
                continue
            module = f"collateral.{file.removesuffix('.py').replace('/', '.')}"
            node = f"{module}:{definition_at(package / file, line)}"
            if node not in known and node not in SAID:
                missing.add(f"{job['rule']}: {node} ({name})")
    assert not missing, "\n".join(sorted(missing))


def test_the_frame_of_jobs_decides_no_result(finished, copy):
    """All jobs of the small study again, without it: nothing of `runtime/` but the fingerprint runs in them."""
    path = copy.folder / "src/collateral/runtime/job.py"
    path.write_text(path.read_text() + "\n\n@contextmanager\ndef job(*_, **__):\n    yield\n")
    assert copy.planned() == set()
    shutil.rmtree(copy.folder / "results")
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert copy.results() == finished.results()


def test_the_tracer_would_notice_what_a_fingerprint_lacks(traced):
    """Each rule's job runs functions that another rule's fingerprint does not have."""
    project, jobs = traced
    ledger = json.loads((project.folder / ".snakemake/collateral.code.json").read_text())
    weigh = next(job for job in jobs if job["rule"] == "weigh")
    report = next(job for job in jobs if job["rule"] == "report")
    others = set(ledger[report["code"]])
    assert any(
        f"collateral.{file.removesuffix('.py').replace('/', '.')}:{name.split('.')[0]}" not in others
        for file, _, name in weigh["ran"]
    )
