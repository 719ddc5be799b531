"""The workflow is used from another folder: by its Snakefile, or as a module of the user's own Snakefile."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

import warmjobs
from smallstudy import ROOT, smoke_config

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SEQUENCE = "results/sequences/embedded/seed-0.parquet"
JOBS = {"sample_sequence": 1, "report": 1, "all": 1}


def snakemake(folder: Path, *args):
    command = [*warmjobs.snakemake(), "--cores", "1", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def planned(text):
    """Rule → jobs of a dry run."""
    table = text.partition("Job stats:")[2].partition("\n\n")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def test_from_another_folder_the_defaults_of_the_project_are_laid_below_the_own_file(tmp_path, tiny_folder):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(smoke_config(tiny_folder)))
    there = ("--snakefile", ROOT / "Snakefile", "--configfile", "mine.yaml")
    text = snakemake(tmp_path, *there, "--dry-run", "--quiet", "rules")
    jobs = planned(text)
    assert jobs.items() >= {**JOBS, "edit": 6, "evaluate_abilities": 6}.items()
    assert "profiles/default" in text  # its triggers hold here too
    snakemake(tmp_path, *there, "--", SEQUENCE)
    assert (tmp_path / SEQUENCE).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {
        ".snakemake",
        "mine.yaml",
        "logs",
        "resources",
        "results",
    }


def test_an_own_default_config_comes_before_the_projects(tmp_path, tiny_folder):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(config, smoke_config(tiny_folder))
    config["study"]["editors"] = ["noop"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(config))
    text = snakemake(tmp_path, "--snakefile", ROOT / "Snakefile", "--dry-run", "--quiet", "rules")
    assert planned(text)["edit"] == 2


def test_as_a_module_it_takes_the_config_of_the_snakefile_that_uses_it(tmp_path, tiny_folder):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(config, smoke_config(tiny_folder))
    config["study"]["editors"] = ["noop", "rome"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "Snakefile").write_text(
        f"""
configfile: "mine.yaml"


module collateral:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config


use rule * from collateral


rule count_positions:
    input:
        "{SEQUENCE}",
    output:
        "positions.txt",
    shell:
        "wc -c < {{input}} > {{output}}"
"""
    )
    jobs = planned(snakemake(tmp_path, "--dry-run", "--quiet", "rules"))
    assert jobs.items() >= {**JOBS, "edit": 4, "evaluate_abilities": 4}.items()
    snakemake(tmp_path, "--", "positions.txt")
    assert int((tmp_path / "positions.txt").read_text()) == (tmp_path / SEQUENCE).stat().st_size
    # the code's fingerprint is that of the project's scripts, so that nothing is made anew
    assert "Nothing to be done" in snakemake(tmp_path, "--", "positions.txt")
