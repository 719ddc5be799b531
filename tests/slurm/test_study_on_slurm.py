"""A study on a real Slurm whose nodes have no network, from nothing to the report, and all that goes wrong meanwhile.

One study, as each of its jobs takes seconds of two cores: two runs that are killed among other things, a third that
ends with one editor that cannot work, and a last one without it.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collateral.study.command_line import find_task_folders, read_study
from collateral.study.cost.estimate import compute_need
from collateral.study.cost.study_sizes import read_sizes
from collateral.study.jobs import Job
from slurmcluster import until

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slurm, pytest.mark.workflow, pytest.mark.slow]

# On a make-believe GPU, though they compute on the CPU.
GPU_RULES = ("edit", "measure_efficacy", "measure_drift", "evaluate_abilities")
CHAIN = "results/edited/tiny/embedded/seed-0/rome"
CELL = ("tiny", "embedded", 0, "rome")
WEIGHTS = {"thresholds": [0.05, 0.1]}
# Taken by load_facts: more than its first attempt asks for, less than its second.
GREEDY = """
held = bytearray({megabytes} << 20)
held[::4096] = bytes(len(held[::4096]))
import time
time.sleep(6)
"""
# The first attempt of sample_contexts hangs.
HANGING = """
import time
from pathlib import Path as Marker
if not Marker("hung").exists():
    Marker("hung").touch()
    time.sleep(3600)
"""


@dataclass
class Story:
    """What happened to a study, run by run."""

    project: object
    said: list[str] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    finished_at_kill: dict[str, tuple[int, int]] = field(default_factory=dict)
    after: dict[str, tuple[int, int]] = field(default_factory=dict)


def stamps(project) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every finished result."""
    found = [path for path in (project.folder / "results").rglob("*") if path.is_file()]
    return {
        str(path.relative_to(project.folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in found
        if ".kept" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def story(new_project, cluster) -> Story:
    editors = {
        "rome": {"method": "rome"},
        "broken": {"method": "rome", "settings": {"layer": 9}, "checkpoints": [1]},
    }
    project = new_project(editors=editors)
    project.configure(study={**project.config["study"], "editors": ["rome", "broken"]})
    scripts = project.folder / "workflow/scripts"
    for name, text in {"load_facts": GREEDY.format(megabytes=900), "sample_contexts": HANGING}.items():
        path = scripts / f"{name}.py"
        path.write_text(path.read_text() + text)
    story = Story(project)
    gpus = [f"{rule}:gpu=1" for rule in GPU_RULES]
    arguments = ("--set-resources", "load_facts:mem_mb=800*attempt", "sample_contexts:runtime=attempt", *gpus)
    first_run(story, cluster, arguments)
    second_run(story, cluster, arguments)
    third_run(story, arguments)
    return story


def killed(story: Story, process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    story.status.append(-9)
    story.said.append(story.project.said())


def first_run(story: Story, cluster, arguments) -> None:
    """Memory, time, scancel, a drained and a lost node, a restarted controller; killed within the chain."""
    project = story.project
    process = project.start(*arguments)
    cluster.call("scancel", project.running("rule_evaluate_unedited"))
    cluster.call("scontrol", "update", "nodename=n1", "state=drain", "reason=maintenance")
    lost = project.running("rule_evaluate_unedited")
    assert cluster.call("squeue", "--noheader", "--jobs", lost, "--format", "%N").strip() == "n2"
    cluster.call("scontrol", "update", "nodename=n2", "state=down", "reason=power")
    cluster.call("scontrol", "update", "nodename=n1", "state=resume")
    cluster.stop_process("slurmctld")
    time.sleep(3)
    cluster.start_controller()
    # a node that registers after the restart may be back already
    cluster.call("scontrol", "update", "nodename=n2", "state=resume", check=False)
    project.running("rule_chain-tiny-embedded-0-rome")
    until((project.folder / CHAIN / "edits-0001/delta.parquet").exists, "the first link", 300)
    until(lambda: kept(project, "edits-0001/delta.parquet"), "the first link to be kept", 30)
    story.finished_at_kill = stamps(project)
    killed(story, process)


def kept(project, name: str) -> bool:
    return any(name in path.read_text() for path in (project.folder / "results/.kept").glob("*/about.json"))


def second_run(story: Story, cluster, arguments) -> None:
    """The chain's job is cancelled while this run waits for it; killed while a checkpoint is evaluated."""
    project = story.project
    process = project.start(*arguments)
    until(lambda: "waiting for 1 Slurm jobs" in project.said(), "the second run to see the job", 60)
    cluster.call("scancel", project.running("rule_chain-tiny-embedded-0-rome"))
    project.running("rule_evaluation-tiny-embedded-0-rome-0")
    killed(story, process)


def third_run(story: Story, arguments) -> None:
    """To the end, but for the editor that cannot work."""
    project = story.project
    story.status.append(project.finish(project.start(*arguments)))
    story.said.append(project.said())
    story.after = stamps(project)


def states(story: Story, job: str) -> list[str]:
    return [one["JobState"] for one in story.project.ended() if one["job"].startswith(job)]


def test_a_job_out_of_memory_is_sent_again_with_more(story):
    jobs = [job for job in story.project.ended() if job["job"].startswith("rule_load_facts")]
    assert [job["JobState"] for job in jobs][-1] == "COMPLETED"
    asked = [int(re.search(r"mem=(\d+)M", job["Tres"])[1]) for job in jobs]
    assert asked == [800, 1600]


def test_a_job_out_of_time_is_sent_again_with_more(story):
    jobs = [job for job in story.project.ended() if job["job"].startswith("rule_sample_contexts")]
    assert [(job["JobState"], job["TimeLimit"]) for job in jobs] == [("TIMEOUT", "1"), ("COMPLETED", "2")]


def test_a_cancelled_job_and_one_on_a_lost_node_are_sent_again(story):
    assert states(story, "rule_evaluate_unedited") == ["CANCELLED", "NODE_FAIL", "COMPLETED"]


def test_the_log_says_what_happened_to_which_job(story):
    said = story.said[0]
    for rule, state in {
        "evaluate_unedited": "CANCELLED",
        "sample_contexts": "TIMEOUT",
        "load_facts": "FAILED|OUT_OF_MEMORY",
    }.items():
        pattern = rf"Error in rule {rule}:\n    message: SLURM-job '\d+' failed, SLURM status is: '({state})'"
        assert re.search(pattern, said), f"{rule}: {said[-6000:]}"
    assert re.search(
        r"Error in rule evaluate_unedited:\n    message: SLURM-job '\d+' failed due to a node", said
    )


def test_the_run_after_a_kill_clears_up_and_waits_for_what_still_runs(story):
    said = story.said[1]
    assert "the run before was killed" in said
    assert "waiting for 1 Slurm jobs of the killed run" in said
    assert "LockException" not in "".join(story.said)
    left = story.project.folder / ".snakemake"
    assert [*left.glob("locks/*"), *left.glob("incomplete/*")] == []


def test_what_was_finished_is_not_computed_again(story):
    """Neither what the killed run had recorded, nor the first link of the chain, nor what ended after the kill."""
    recorded = [name for name in story.finished_at_kill if not name.startswith("results/edited/")]
    assert any("unedited" in name for name in recorded)
    assert any("prepared" in name for name in recorded)
    assert {name: story.after[name] for name in recorded} == {
        name: story.finished_at_kill[name] for name in recorded
    }
    folder = story.project.folder
    link = folder / "logs/edit/tiny/embedded/seed-0/rome/edits-0001.log"
    assert "taken back" in link.read_text()
    evaluated = folder / "logs/evaluate_abilities/tiny/embedded/seed-0/rome/edits-0001/two.log"
    assert "taken back" in evaluated.read_text()


def test_no_half_file_is_left(story):
    rest = [path for path in story.project.folder.rglob("*.partial") if path.is_file()]
    assert rest == []


def test_a_job_that_fails_for_good_is_named_with_what_repeats_it_alone(story):
    said = story.said[2]
    assert story.status == [-9, -9, 1]
    line = next(line for line in said.splitlines() if "Failed for good" in line)
    assert "edit (model=tiny, dataset=embedded, seed=0, editor=broken, edits=0001)" in line
    log = Path(re.search(r"log: (\S+);", line)[1])
    assert log == Path("logs/edit/tiny/embedded/seed-0/broken/edits-0001.log")
    assert "layer 9 is outside the model" in (story.project.folder / log).read_text()
    command = shlex.split(line.split("alone: ")[1])
    assert command[:3] == ["snakemake", "--profile", "profiles/slurm"]
    assert command[-2] == "--"
    assert command[-1].endswith("broken/edits-0001/delta.parquet")


def test_the_command_repeats_the_failed_job_alone(story):
    line = next(line for line in story.said[2].splitlines() if "Failed for good" in line)
    words = shlex.split(line.split("alone: ")[1])[1:]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", *words],
        cwd=story.project.folder,
        env={**story.project.cluster.environment, "PYTHONPATH": str(story.project.folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = set(re.findall(r"^\s*Job \d+: (.*)$", done.stdout + done.stderr, flags=re.MULTILINE))
    assert found == {"Edit tiny with broken up to 0001 edits"}


def test_the_rest_of_the_study_went_on(story):
    for edits in (1, 2):
        folder = story.project.folder / CHAIN / f"edits-{edits:04d}"
        for name in (
            "delta.parquet",
            "efficacy.parquet",
            "drift.parquet",
            "weights.parquet",
            "abilities/two.json",
        ):
            assert (folder / name).exists(), f"{edits}: {name}"


def test_jobs_see_no_network(cluster):
    if not cluster.prefix:
        pytest.skip("this machine makes no network namespaces")
    interfaces = cluster.call("srun", "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_the_profile_really_submits_to_both_nodes(story):
    assert all("SLURM run ID" in said for said in story.said)
    places = {job["NodeList"] for job in story.project.ended()}
    assert places - {"(null)"} == {"n1", "n2"}  # a job that was cancelled while it waited had none


def test_gpu_jobs_go_to_the_partition_with_gpus_and_a_group_asks_for_one(story, cluster):
    for job in story.project.ended():
        if job["job"]:
            gpu = any(re.search(rf"_{rule}(_|/|$)", job["job"]) for rule in GPU_RULES)
            assert job["Partition"] == ("gpu" if gpu else "cpu"), job
            asked = re.findall(r"TresPerJob=(\S+)", cluster.call("scontrol", "show", "job", job["JobId"]))
            assert asked == (["gres:gpu:1"] if gpu else []), job


def test_short_jobs_share_a_submission(story):
    kinds = {job["job"].split("/")[0] for job in story.project.ended() if job["job"].startswith("group_")}
    chain = "chain-tiny-embedded-0-rome-0_edit_measure_drift_measure_efficacy"
    assert f"group_{chain}" in kinds
    assert "group_weights-tiny-embedded-0-rome-0_weigh" in kinds
    assert {f"group_evaluation-tiny-embedded-0-rome-{block}_evaluate_abilities" for block in (0, 1)} <= kinds
    assert not any(job["job"].startswith(("rule_edit", "rule_weigh")) for job in story.project.ended())


def test_a_group_asks_for_the_time_of_all_its_jobs_and_the_memory_of_one(story, monkeypatch):
    """Its jobs run one after another, whatever the number of cores of the node."""
    monkeypatch.chdir(story.project.folder)
    study = read_study(Path(), Path("study.yaml"), [])
    sizes = read_sizes(study, find_task_folders(study, Path()))
    rules = ("edit", "measure_efficacy", "measure_drift")
    jobs = [Job(rule, "", *CELL, start, start + 1) for rule in rules for start in (0, 1)]
    needs = [compute_need(job, study, sizes) for job in jobs]
    chains = [job for job in story.project.ended() if "chain-tiny-embedded-0-rome-0" in job["job"]]
    assert int(chains[-1]["TimeLimit"]) == sum(need.minutes for need in needs)
    assert f"mem={max(need.memory for need in needs)}M" in chains[-1]["Tres"]


@pytest.fixture(scope="module")
def mended(story):
    """Without the broken editor, and with other thresholds: one stage and the report are made again."""
    project = story.project
    before = stamps(project)
    project.configure(study={**project.config["study"], "editors": ["rome"]}, weights=WEIGHTS)
    planned = project.planned()
    project.submit()
    return planned, before


def test_one_stage_is_run_again_alone(mended, story):
    planned, before = mended
    weighed = {f"Weigh rome after {edits:04d} edits" for edits in (1, 2)}
    assert planned >= weighed
    assert {message.split(" ")[0] for message in planned - weighed} == {"Gather", "Infer", "Draw"}
    after = stamps(story.project)
    same = [name for name in before if not re.search(r"weights|heatmap|/tables/|/report/|/figures/", name)]
    assert len(same) > 15
    assert [name for name in same if after[name] != before[name]] == []


def test_the_report_is_there_and_nothing_is_left_to_do(mended, story):
    folder = story.project.folder
    assert (folder / "results/report/index.html").stat().st_size > 100_000
    assert story.project.planned() == set()
    assert list((folder / "results/.kept").iterdir()) == []


def test_every_artifact_equals_an_undisturbed_local_run_byte_for_byte(mended, story, new_project):
    undisturbed = new_project(weights=WEIGHTS)
    done = undisturbed.snakemake("--", "results/tables/abilities.parquet")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    local, mine = undisturbed.results(), story.project.results()
    assert sum("edits-000" in name for name in local) > 15
    assert sum("tables" in name for name in local) > 5
    assert [name for name in local if mine.get(name) != local[name]] == []
