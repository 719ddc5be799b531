"""Profiles: the default one is laid over any other, so it may hold only what is right everywhere."""

from pathlib import Path

import yaml
from snakemake.utils import update_config

from collateral.settings import load_study

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
