"""The small study on a real Slurm whose nodes have no network, from nothing to the report."""

import re
from collections import Counter

import pytest

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slurm, pytest.mark.workflow, pytest.mark.slow]

GPU_RULES = ("edit", "measure_efficacy", "measure_drift", "evaluate_unedited", "evaluate_abilities")


@pytest.fixture(scope="module")
def study(new_project):
    """Run with a make-believe GPU for the rules that would take one, and two checkpoints a submission."""
    project = new_project()
    project.edit("profiles/slurm/config.yaml", "chain=25", "chain=2")
    project.submit("--set-resources", *(f"{rule}:gpu=1" for rule in GPU_RULES))
    return project


def test_jobs_see_no_network(cluster):
    if not cluster.prefix:
        pytest.skip("this machine makes no network namespaces")
    interfaces = cluster.call("srun", "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_the_profile_really_submits(study):
    assert "SLURM run ID" in study.said()
    states = Counter(job["JobState"] for job in study.ended())
    assert states == {"COMPLETED": len(study.submissions())}


def test_every_artifact_equals_a_local_run_byte_for_byte(study, undisturbed):
    mine, local = study.results(), undisturbed.results()
    assert len(local) > 40
    assert mine.keys() == local.keys()
    assert [name for name in local if mine[name] != local[name]] == []


def test_the_report_is_there_and_nothing_is_left_to_do(study):
    assert (study.folder / "results/report/index.html").stat().st_size > 100_000
    assert study.planned() == set()
    assert list((study.folder / "results/.kept").iterdir()) == []


def test_short_jobs_share_a_submission(study):
    """26 jobs of three checkpoints: a chain in two pieces, its weights in one, an evaluation a checkpoint."""
    kinds = Counter(job["job"].split("/")[0] for job in study.ended())
    assert kinds == {
        "rule_download_model": 1,
        "rule_load_facts": 1,
        "rule_sample_sequence": 1,
        "rule_sample_contexts": 1,
        "rule_evaluate_unedited": 1,
        "rule_measure_reference": 3,
        "group_chain-tiny-embedded-0-rome-0_edit_measure_drift_measure_efficacy": 1,
        "group_chain-tiny-embedded-0-rome-1_edit_measure_drift_measure_efficacy": 1,
        "group_weights-tiny-embedded-0-rome-0_weigh": 1,
        "group_evaluation-tiny-embedded-0-rome-0_evaluate_abilities": 1,
        "group_evaluation-tiny-embedded-0-rome-1_evaluate_abilities": 1,
        "group_evaluation-tiny-embedded-0-rome-2_evaluate_abilities": 1,
        "rule_gather": 1,
        "rule_infer": 1,
        "rule_report": 1,
    }


def test_gpu_jobs_go_to_the_partition_with_gpus_and_a_group_asks_for_one(study, cluster):
    for job in study.ended():
        gpu = any(rule in job["job"] for rule in GPU_RULES)
        assert job["Partition"] == ("gpu" if gpu else "cpu"), job
        asked = re.findall(r"TresPerJob=(\S+)", cluster.call("scontrol", "show", "job", job["JobId"]))
        assert asked == (["gres:gpu:1"] if gpu else []), job
    assert {job["NodeList"] for job in study.ended() if job["Partition"] == "gpu"} == {"n1"}


def test_a_group_asks_for_the_time_of_all_its_jobs_and_the_memory_of_one(study):
    """Its jobs run one after another, whatever the number of cores of the node; here all rules ask for the least."""
    two, one = (
        next(job for job in study.ended() if f"chain-tiny-embedded-0-rome-{block}" in job["job"])
        for block in (0, 1)
    )
    assert int(two["TimeLimit"]) == 2 * int(one["TimeLimit"])
    assert two["Tres"] == one["Tres"]
