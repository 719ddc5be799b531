"""How many submissions a study is on a cluster, by Snakemake's own reckoning and with the profile's own numbers."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

import warmjobs
from smallstudy import ROOT, Project, make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# counts what a cluster would be sent: jobs by rule, groups by their kind
COUNT = """
import json, sys
from collections import Counter
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings, GroupSettings, OutputSettings, Quietness, ResourceSettings
)
with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
    flow = api.workflow(
        resource_settings=ResourceSettings(nodes=100),
        config_settings=ConfigSettings(configfiles=[Path("study.yaml")]),
        snakefile=Path("Snakefile"),
    )
    flow.dag().execute_workflow(
        executor="slurm",
        pseudo_executor="dryrun",
        group_settings=GroupSettings(group_components=json.loads(sys.argv[1])),
    )
    dag = flow._workflow.dag
    sent = {*dag._group.values(), *(job for job in dag.jobs if job.group is None)}
    counts = Counter(one.groupid.split("-")[0] if one.is_group() else one.rule.name for one in sent)
    print("COUNTS", json.dumps(counts))
"""
ALONE = {
    "all",
    "download_model",
    "load_facts",
    "sample_sequence",
    "sample_contexts",
    "evaluate_unedited",
    "measure_reference",
    "gather",
    "infer",
    "report",
}


def profile_groups() -> dict[str, int]:
    pairs = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["group-components"]
    return {name: int(size) for name, size in (pair.split("=") for pair in pairs)}


def submissions(folder: Path, groups: dict[str, int]) -> dict[str, int]:
    (folder / "count.py").write_text(COUNT)
    done = subprocess.run(
        [warmjobs.client(), "count.py", json.dumps(groups)],
        cwd=folder,
        env=Project(folder).environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("COUNTS "))
    return json.loads(line.removeprefix("COUNTS "))


@pytest.fixture(scope="module")
def long_study(tmp_path_factory, tiny_folder):
    """One chain of 120 checkpoints: nothing of it is run."""
    project = make_project(tmp_path_factory.mktemp("long"), tiny_folder)
    study = {**project.config["study"], "editors": ["rome"], "checkpoints": list(range(1, 121))}
    project.configure(
        study=study, datasets={"embedded": {**project.config["datasets"]["embedded"], "limit": None}}
    )
    return project


def test_a_chain_of_120_checkpoints_is_5_submissions_and_its_weights_2(long_study):
    counts = submissions(long_study.folder, profile_groups())
    assert {name: count for name, count in counts.items() if name not in ALONE} == {
        "chain": 5,
        "weights": 2,
        "evaluation": 120,
    }
    assert counts.keys() >= ALONE


def test_the_profile_decides(long_study):
    study = {**long_study.config["study"], "checkpoints": list(range(1, 31))}
    long_study.configure(study=study)
    counts = submissions(long_study.folder, {"chain": 15, "evaluation": 10})
    assert {name: count for name, count in counts.items() if name not in ALONE} == {
        "chain": 2,
        "weigh": 30,
        "evaluation": 3,
    }


def test_one_stage_alone_shares_submissions_too(copy):
    """Without the edits that tie them together, the pieces of a block are put together up to its size."""
    for path in copy.folder.glob("results/edited/tiny/embedded/seed-0/*/edits-*/weights.parquet"):
        path.unlink()
    counts = submissions(copy.folder, profile_groups())
    assert counts["weights"] == 3
    assert "weigh" not in counts
    assert "chain" not in counts
