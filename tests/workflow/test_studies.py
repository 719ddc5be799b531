"""Every shipped study is planned without data, model or network, and has the jobs that its papers' figures need."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import warmjobs

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# Per study: jobs of each kind, counted by hand from the parts.
COUNTS = {
    # noop at its last checkpoint, three others at four
    None: {"edit": 13, "evaluate_abilities": 13, "evaluate_unedited": 1, "measure_reference": 5},
    # seven editors and noop; moments of one layer
    "controls": {"edit": 29, "evaluate_abilities": 29, "measure_moments": 1},
    # zsre, seed 0: rome 1 5 10 15 20 50; five others at 20 and 50, three at 20, noop at 50; twice four at 20;
    # a chain that is evaluated twice is screened once
    "laptop": {
        "edit": 6 + 5 * 2 + 3 + 1 + 4 + 4,
        "evaluate_abilities": 2 + 5 * 2 + 3 + 1 + 4 + 4,
        "edit_singly": 5 * 2,
        "screen_collapse": 6,
        "sample_sequence": 3,
        "measure_moments": 1,
    },
    # three models: kn and rome at 7, ten batches, six times five operations; gpt2-xl: six regularised romes at 5 more
    "rect": {
        "edit": 3 * (2 * 7 + 10 + 6 * 5) + 6 * 5,
        "evaluate_abilities": 3 * (2 * 7 + 10 + 6 * 5) + 6 * 5,
        "edit_singly": 3 * 14 * 4,
        "train_hypernetwork": 3,
        "evaluate_unedited": 3,
    },
    # two models. zsre: ft, grace 3, four with curves 14, kn 5; llama d4s at 10,000. Two sets x 6 x 3; three sets
    # x 3 x 5; three question types x 2 x 5. Abilities: not on the curves nor on the two sets.
    "d4s": {
        "edit": 2 * (2 * 3 + 4 * 14 + 5 + 2 * 6 * 3 + 3 * 3 * 5 + 3 * 2 * 5) + 1,
        "evaluate_abilities": 2 * (4 * 3 + 2 * 7 + 5 + 3 * 3 * 5 + 3 * 2 * 5) + 1,
        "evaluate_unedited": 2,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty working directory with the configs: nothing is downloaded, prepared or edited there."""
    made = tmp_path_factory.mktemp("plans")
    (made / "config").symlink_to(ROOT / "config")
    return made


def planned(folder, study):
    """Rule → number of jobs of a dry run."""
    command = [*warmjobs.snakemake(), "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--quiet", "rules"]
    command += ["--configfile", f"config/studies/{study}.yaml"] if study else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = (done.stdout + done.stderr).split("Job stats:", 1)[1].split("\n\n", 1)[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def test_the_table_names_every_shipped_study():
    assert {path.stem for path in (ROOT / "config/studies").glob("*.yaml")} == set(COUNTS) - {None}


@pytest.mark.parametrize("study", COUNTS)
def test_a_study_is_planned_with_its_jobs(folder, study):
    jobs = planned(folder, study)
    assert {rule: jobs.get(rule, 0) for rule in COUNTS[study]} == COUNTS[study]
    assert jobs["total"] == sum(count for rule, count in jobs.items() if rule != "total")
    assert jobs["weigh"] == jobs["measure_efficacy"] == jobs["edit"]
