"""`make plan` beside Snakemake's own dry run: the same jobs, and a plan even where Snakemake stops."""

import re
import subprocess

import pytest

import warmjobs
from smallstudy import make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
EVERYTHING = ["noop", "rome", "rome-mom2", "placebo", "grace", "mend", "mend-rect"]


def plan(project, *args):
    """What `make plan` prints for the small study."""
    command = [warmjobs.client(), "-m", "collateral.cli", "plan", "--configfile", "study.yaml", *args]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def counts(text):
    """Stage → (jobs, still to do), of a plan's table."""
    rows = re.findall(r"^(\w+) +(\d+) +(\d+|\?) ", text, flags=re.MULTILINE)
    return {name: (int(jobs), left) for name, jobs, left in rows if name != "total"}


def dry_run(project):
    """Rule → number of jobs, as Snakemake's dry run counts them."""
    done = project.snakemake("-n")
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).partition("\njob ")[2].partition("\ntotal")[0]
    return {
        name: int(jobs)
        for name, jobs in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
        if name != "all"
    }


def test_a_plan_counts_the_jobs_that_snakemake_counts(tmp_path, tiny_folder):
    project = make_project(tmp_path / "project", tiny_folder)
    editors = project.config["editors"]
    editors["alone"] = {"method": "rome", "editing": "single"}
    parts = {
        "all": {"editors": EVERYTHING, "checkpoints": [1]},
        "seeds": {"editors": ["rome-rect"], "seeds": [0, 3], "suites": ["three"]},
        "alone": {"editors": ["alone"], "suites": []},
    }
    project.configure(editors=editors, study={**project.config["study"], "parts": parts})
    text = plan(project)
    assert counts(text) == {rule: (jobs, str(jobs)) for rule, jobs in dry_run(project).items()}
    assert "Unknown shape: tiny" in text


def test_what_is_done_is_not_to_do_and_what_a_longer_study_adds_is(copy):
    assert {left for _, left in counts(plan(copy)).values()} == {"0"}
    copy.configure(study={**copy.config["study"], "checkpoints": [1, 3, 4]})
    left = {rule: int(left) for rule, (_, left) in counts(plan(copy)).items() if left != "0"}
    assert left == dry_run(copy)


def test_a_plan_without_the_mirror_counts_all_and_names_the_files(tmp_path, tiny_folder):
    project = make_project(tmp_path / "project", tiny_folder)
    project.configure(suites={"two": {"tasks": ["mutual"], "limit": 2}})
    text = plan(project)
    assert "Only a mirror can supply" in text
    assert "mutual_dev.jsonl" in text
    assert counts(text)["prepare_benchmark"] == (1, "1")


def test_where_snakemake_stops_the_plan_says_why_and_counts_all(tmp_path, tiny_folder):
    project = make_project(tmp_path / "project", tiny_folder)
    with (project.folder / "workflow/rules/report.smk").open("a") as rules:
        rules.write('raise WorkflowError("a rule of mine is broken")\n')
    text = plan(project)
    assert "What is still to do is not known, so all of it counts as to do: a rule of mine is broken" in text
    assert counts(text)["edit"] == (6, "?")
