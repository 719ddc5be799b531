"""What jobs ask of a cluster: enough for what was recorded, more for more work, the same on every machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from collateral.study.cost.estimate import (
    LEAST,
    SNAKEMAKE,
    compute_need,
    count_gpus,
    estimate_jobs,
    take_largest,
)
from collateral.study.cost.study_sizes import read_sizes
from collateral.study.cost.work import Need
from collateral.study.jobs import Job, list_jobs
from planned_studies import MODEL, RECORDED, sizes_of, study_of

ROOT = Path(__file__).parents[2]
SIXTH = Job("edit", "", "gpt-j-6b", "zsre", 0, "memit", 0, 100)
WITHOUT = {
    "download_model",
    "download",
    "download_text",
    "load_facts",
    "load_training_facts",
    "prepare_benchmark",
    "sample_sequence",
}
WITHOUT |= {"weigh", "screen_collapse", "export_checkpoint", "gather", "infer", "report"}


def study_on(device, model="gpt-j-6b", **own):
    """A study of one model on a device."""
    settings = {"device": device, "dtype": "bfloat16", **own}
    return study_of(models=[model], editors=["memit"], sections={"models": {model: settings}})


def need(job, study):
    return compute_need(job, study, sizes_of(study))


def jobs_of(study):
    return list_jobs(study, {name: [] for name in study.settings["suites"]}, None)


@pytest.mark.parametrize(("job", "seconds", "memory"), RECORDED)
def test_what_was_recorded_fits_into_what_is_asked_for(job, seconds, memory):
    asked = need(job, study_of(datasets=["embedded"]))
    assert memory + SNAKEMAKE / 1e6 <= asked.memory < 4 * memory + SNAKEMAKE / 1e6
    assert seconds / 60 < asked.minutes


def test_a_model_of_six_billion_on_a_gpu_asks_for_its_weights_in_main_memory_and_one_gpu():
    """6,050.9 million parameters in 16 bits are 12.1 GB; MEMIT's six moments, 16384² in float64, are 12.9 GB."""
    asked = need(SIXTH, study_on("cuda"))
    assert asked.memory > 12100 + 12900
    assert asked.gpus == 1
    measured = need(Job("measure_efficacy", "", *SIXTH.cell, 0, 100), study_on("cuda"))
    assert 12100 < measured.memory < asked.memory


def test_on_the_cpu_main_memory_holds_the_edit_too_and_no_gpu_is_asked_for():
    on_cpu, on_gpu = need(SIXTH, study_on("cpu")), need(SIXTH, study_on("cuda:1"))
    assert on_cpu.memory > on_gpu.memory
    assert on_cpu.minutes > on_gpu.minutes
    assert (on_cpu.gpus, on_gpu.gpus) == (0, 1)


def test_a_larger_model_asks_for_more_and_so_do_more_edits():
    small, large = (
        need(Job("edit", "", one, "zsre", 0, "memit", 0, 100), study_on("cuda", one))
        for one in ("gpt2-xl", "gpt-j-6b")
    )
    assert small.memory < large.memory
    assert small.minutes <= large.minutes
    assert large.minutes < need(Job("edit", "", *SIXTH.cell, 0, 1000), study_on("cuda")).minutes


def test_a_download_of_a_large_model_has_time_for_a_slow_network():
    """24.2 GB at 5 MB a second are 81 minutes."""
    assert 81 < need(Job("download_model", "", "gpt-j-6b"), study_on("cuda")).minutes < 240


def test_a_model_of_unknown_shape_asks_for_what_gpt2_large_would_and_its_gpu():
    study = study_on("cuda", shape=None)
    gpt2_large = {"hidden": 1280, "intermediate": 5120, "vocabulary": 50257, "positions": 1024}
    known = study_on("cuda", shape=gpt2_large, layers=36)
    for job in jobs_of(study):
        assert need(job, study) == need(job, known)
    assert need(SIXTH, study).gpus == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_what_loads_a_model_asks_for_a_gpu_and_nothing_asks_for_less_than_the_least(device):
    study = study_on(device)
    jobs = [*jobs_of(study), Job("export_checkpoint", "", *SIXTH.cell, 0, 100)]
    for job in jobs:
        asked = need(job, study)
        assert asked.gpus == count_gpus(job, study) == int(device == "cuda" and job.rule not in WITHOUT)
        assert asked.memory >= LEAST.memory
        assert asked.minutes >= LEAST.minutes
    assert {job.rule for job in jobs} > {"edit", "weigh", "gather", "evaluate_abilities", "measure_moments"}


def test_a_request_is_above_the_estimate_and_no_record_changes_it():
    study = study_of()
    for one in estimate_jobs(study, jobs_of(study), sizes_of(study)):
        asked = need(one.job, study)
        assert one.host < 1e6 * asked.memory
        if one.job.rule not in WITHOUT:
            assert one.seconds * one.source.factor <= 60 * asked.minutes


def test_the_largest_request_takes_the_most_of_each():
    assert take_largest([Need(4000, 10, 1), Need(1000, 600), Need(2000, 30)]) == Need(4000, 600, 1)


# What Snakemake makes of the rules of the default study: each rule's resources at the first and the second attempt.
RESOURCES = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
config, wildcards = json.loads(sys.argv[1])
with SnakemakeApi(OutputSettings()) as api:
    flow = api.workflow(ResourceSettings(cores=1), ConfigSettings(config=config), snakefile=Path("Snakefile"))
    own = flow._workflow
    found = {"local": own.resource_scopes.is_local("gpu")}
    for rule in own.rules:
        names = Wildcards(fromdict={name: wildcards.get(name, "x") for name in rule.wildcard_names})
        asked = [rule.expand_resources(names, [], attempt) for attempt in (1, 2)]
        found[rule.name] = [[one.get(name) for name in ("mem_mb", "runtime", "gpu")] for one in asked]
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def resources():
    """Rule → (memory, minutes, GPUs) at two attempts, with the model on a GPU, as Snakemake reads them."""
    wildcards = {"model": MODEL, "dataset": "embedded", "seed": "0", "editor": "rome", "learner": "mend"}
    wildcards |= {"edits": "0005", "suite": "abilities", "layers": "05"}
    study = {"editors": ["rome", "mend"]}
    given = json.dumps([{"study": study, "models": {MODEL: {"device": "cuda"}}}, wildcards])
    done = subprocess.run(
        [sys.executable, "-c", RESOURCES, given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_rule_says_memory_minutes_and_gpus_and_asks_for_twice_as_much_the_second_time(resources):
    targets = {name for name in resources if name in {"all", "staged", "local"} or name.endswith("_all")}
    rules = {name: asked for name, asked in resources.items() if name not in targets}
    assert len(rules) == len(WITHOUT) + 11
    for name, ((memory, minutes, gpus), second) in rules.items():
        assert second == [2 * memory, 2 * minutes, gpus], name
        assert memory >= LEAST.memory
        assert minutes >= LEAST.minutes
        assert gpus == (name not in WITHOUT), name


def test_a_rule_asks_for_what_its_own_job_needs(resources):
    study = study_of(editors=["rome", "mend"], sections={"models": {MODEL: {"device": "cuda"}}})
    own = [job for job in jobs_of(study) if job.edits in {0, 5} and job.layers in {(), (5,)}]
    jobs = {job.rule: job for job in own if job.editor in {"", "rome"} or job.rule == "train_hypernetwork"}
    assert len(jobs) > 10
    for name, job in jobs.items():
        asked = compute_need(job, study, read_sizes(study, {"abilities": []}))
        assert resources[name][0] == [asked.memory, asked.minutes, asked.gpus], name


def test_a_number_of_gpus_given_for_one_machine_does_not_count_over_a_clusters_jobs(resources):
    assert resources["local"] is True
