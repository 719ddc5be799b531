"""Profiles: the default one is laid over any other, so it may hold only what is right everywhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from collateral.study.config import load_study

ROOT = Path(__file__).parents[2]


def profile(name):
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())


def test_default_profile_overrides_nothing_that_a_cluster_needs():
    allowed = {
        "rerun-triggers",
        "max-checksum-file-size",
        "rerun-incomplete",
        "keep-going",
        "show-failed-logs",
    }
    assert set(profile("default")) <= allowed
    assert "code" not in profile("default")["rerun-triggers"]


# Three jobs of a GPU each, under the project's own bounds; a job notes how many it saw beside it.
TURNS = """
class SOURCES:
    save = staticmethod(lambda: None)


CODES = {{}}


class STUDY:
    names = staticmethod(lambda kind: ["model"])
    gpu_count = staticmethod(lambda model: 1)


include: "{rules}/running.smk"


resource_scopes:
    gpu="local",


rule all:
    input: expand("{{n}}.txt", n=range(3))


rule compute:
    output: "{{n}}.txt"
    log: "{{n}}.log"
    resources: gpu=1
    shell: "touch {{output}}.now; ls *.now | wc -l > {{output}}; sleep 2; rm {{output}}.now"
"""


@pytest.mark.parametrize(("more", "most"), [([], 1), (["--resources", "gpu=2"], 2)])
def test_as_many_jobs_compute_on_a_gpu_as_the_machine_is_said_to_have(tmp_path, more, most):
    (tmp_path / "Snakefile").write_text(TURNS.format(rules=ROOT / "workflow/rules"))
    command = [sys.executable, "-m", "snakemake", "--cores", "3", *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(int(path.read_text()) for path in tmp_path.glob("?.txt")) == most


def test_slurm_profile_retries_in_the_profile_and_polls_without_accounting():
    slurm = profile("slurm")
    assert slurm["executor"] == "slurm"
    assert slurm["slurm-status-command"] == "squeue"
    assert slurm["retries"] >= 1
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert "retries:" not in rules


def test_every_shipped_study_is_valid_on_top_of_the_default():
    studies = sorted((ROOT / "config/studies").glob("*.yaml"))
    assert studies
    for path in studies:
        merged = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        update_config(merged, yaml.safe_load(path.read_text()))
        load_study(merged, ROOT / "workflow/schemas/config.schema.yaml")
