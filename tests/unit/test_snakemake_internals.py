"""The names of Snakemake that its documentation does not promise: all in one file, and all there in this version."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import snakemake
from snakemake.dag import DAG
from snakemake.jobs import Job, Reason
from snakemake.persistence import ParamsChange
from snakemake.settings.types import DAGSettings, GroupSettings
from snakemake.workflow import Workflow
from snakemake_interface_executor_plugins.settings import CommonSettings

from collateral.runtime.snakemake_internals import READ_ON

ROOT = Path(__file__).parents[2]
# what only runtime/snakemake_internals.py may say; `workflow.rules` and the like are harmless in comments
PRIVATE = re.compile(
    r"workflow\.(execute|scheduler|dag|persistence|global_resources|register_resource|\w*group\w*|\w*settings|_\w+)\b"
    r"|overwrite_function_params|common_settings|\.snakemake/(metadata|locks|incomplete|auxiliary)"
)
REMEDY = (
    "read runtime/snakemake_internals.py against the new version, and adapt it, READ_ON and pyproject.toml"
)


def test_the_version_is_that_on_which_the_names_were_read():
    assert snakemake.__version__.rpartition(".")[0] == READ_ON, REMEDY
    assert f'"snakemake>={READ_ON},<9.28"' in (ROOT / "pyproject.toml").read_text()


def test_the_names_are_there():
    assert "executor_plugin" in inspect.signature(Workflow.execute).parameters, REMEDY
    assert list(inspect.signature(Workflow.register_resource).parameters) == ["self", "name", "value"], REMEDY
    fields = {
        CommonSettings: ("dryrun_exec", "touch_exec"),
        GroupSettings: ("group_components",),
        DAGSettings: ("targets",),
        ParamsChange: ("only_old", "only_new"),
    }
    for kind, names in fields.items():
        assert set(names) <= set(kind.__dataclass_fields__), f"{kind}: {REMEDY}"
    attributes = {
        CommonSettings: ("local_exec",),
        Workflow: ("parent_groupids", "dag", "is_main_process"),
        DAG: ("needrun_jobs", "reason"),
        Job: ("message", "rule", "output"),
        Reason: (
            "missing_output",
            "incomplete_output",
            "updated_input",
            "updated_input_run",
            "input_changed",
            "software_stack_changed",
            "forced",
            "params_changed",
        ),
    }
    for kind, names in attributes.items():
        own = {*dir(kind), *getattr(kind, "__slots__", ()), *inspect.signature(kind.__init__).parameters}
        assert set(names) <= own, f"{kind}: {REMEDY}"


def test_no_other_file_uses_such_a_name():
    patterns = ("src/**/*.py", "workflow/**/*.smk", "workflow/**/*.py", "Snakefile")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    users = {path.name for path in files if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert users == {"snakemake_internals.py"}


EVENTS = """
import os
from pathlib import Path
from collateral.runtime.workflow_run import guard_workflow

if workflow.is_main_process:
    guard_workflow(workflow, logger, gpus=1)


rule all:
    input: "b.txt"


rule a:
    output: "a.txt"
    log: "a.log"
    shell: "touch {output}"


rule b:
    input: "a.txt"
    output: "{name}.txt"
    wildcard_constraints: name="b"
    log: "{name}.log"
    params: settings={settings!r}
    shell: "{command}"
"""


def run(folder, *options, settings=None, command="touch {output}"):
    text = EVENTS.replace("{settings!r}", repr(settings or {})).replace("{command}", command)
    (folder / "Snakefile").write_text(text)
    words = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "rules", *options]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_a_job_that_fails_is_named_at_the_end_with_what_repeats_it_alone(tmp_path):
    done = run(
        tmp_path,
        "--keep-going",
        command="false",
    )
    assert done.returncode == 1
    words = "--cores 1 --quiet rules --keep-going --"
    assert f"Failed for good: b (name=b); log: b.log; alone: snakemake {words} b.txt" in done.stderr
    assert run(tmp_path).returncode == 0


def test_a_second_run_is_refused_in_one_line_of_snakemakes(tmp_path):
    from collateral.runtime.run_lock import hold_run

    with hold_run(tmp_path):
        refused = run(tmp_path)
        planned = run(tmp_path, "--dry-run")
    assert refused.returncode == 1
    assert "another run is at work in this folder" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "b.txt").exists()
    assert planned.returncode == 0
