"""A job's GPU: one that no other job holds, of those that the machine or the cluster offers."""

import os
import signal
import subprocess
import sys

import pytest

from collateral.runtime import gpu_lock

TAKER = """
import sys, time
from collateral.runtime.gpu_lock import take_gpu
print(take_gpu("cuda"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Sets what the machine and the environment offer; locks lie in a folder of their own."""
    monkeypatch.setattr(gpu_lock.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpu_lock, "_held", [])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def offer(visible=None, machine=()):
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        if machine:
            (tools / "nvidia-smi").write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(machine))
            (tools / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin" if machine else str(tools))
        if visible is None:
            monkeypatch.delenv(gpu_lock.VISIBLE, raising=False)
        else:
            monkeypatch.setenv(gpu_lock.VISIBLE, visible)

    yield offer
    for lock in gpu_lock._held:
        os.close(lock)


def other(count):
    """Other processes that each hold a GPU, and the GPUs' names."""
    found = []
    for _ in range(count):
        one = subprocess.Popen([sys.executable, "-c", TAKER], stdout=subprocess.PIPE, text=True)
        found.append((one, one.stdout.readline().strip()))
    return found


def test_each_of_several_jobs_gets_another_gpu(offered):
    offered(machine=["GPU-a", "GPU-b", "GPU-c"])
    others = other(2)
    try:
        assert {name for _, name in others} == {"GPU-a", "GPU-b"}
        assert gpu_lock.take_gpu("cuda") == os.environ[gpu_lock.VISIBLE] == "GPU-c"
    finally:
        end(others)


def test_a_job_waits_for_a_gpu_and_gets_it_when_the_other_job_is_killed(offered, monkeypatch):
    offered(machine=["GPU-a"])
    ((process, name),) = others = other(1)
    waited = []
    monkeypatch.setattr(gpu_lock.time, "sleep", lambda seconds: (waited.append(seconds), end(others)))
    assert name == "GPU-a"
    assert gpu_lock.take_gpu("cuda") == "GPU-a"
    assert waited
    assert process.returncode == -signal.SIGKILL


def test_a_job_chooses_among_the_gpus_that_the_environment_names(offered):
    offered(visible="2, 5", machine=["GPU-a"])
    others = other(1)
    try:
        assert others[0][1] == "2"
        assert gpu_lock.take_gpu("cuda") == os.environ[gpu_lock.VISIBLE] == "5"
    finally:
        end(others)


def test_a_single_gpu_from_the_cluster_is_left_alone(offered, tmp_path):
    offered(visible="0", machine=["GPU-a", "GPU-b"])
    assert gpu_lock.take_gpu("cuda") == ""
    assert os.environ[gpu_lock.VISIBLE] == "0"
    assert not list(tmp_path.glob("*.lock"))


def test_two_jobs_of_a_cluster_on_one_node_do_not_wait_for_each_others_numbers(offered, monkeypatch):
    offered(visible="0,1")
    others = []
    try:
        for number in ("17", "18"):
            monkeypatch.setenv("SLURM_JOB_ID", number)
            others += other(1)
        assert [name for _, name in others] == ["0", "0"]
    finally:
        end(others)


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_an_explicit_device_takes_no_gpu(offered, device):
    offered(machine=["GPU-a"])
    assert gpu_lock.take_gpu(device) == ""
    assert gpu_lock.VISIBLE not in os.environ


def test_a_machine_without_nvidias_tools_has_no_gpu_to_choose(offered):
    offered()
    assert gpu_lock.take_gpu("cuda") == ""


def test_no_library_queries_gpus_before_a_job_has_taken_one():
    """CUDA reads the variable once: a question at import would come before the job's choice."""
    code = (
        "import torch, sys\nasked = []\n"
        "for name in ('is_available', 'device_count', 'current_device', '_lazy_init'):\n"
        "    setattr(torch.cuda, name, lambda *a, _name=name, **k: asked.append(_name) or 0)\n"
        "import collateral.evaluation.harness, collateral.pipeline.edit_chain, collateral.editing.checkpoint\n"
        "import collateral.editing.prepare.context_templates, collateral.evaluation.drift\n"
        "import collateral.evaluation.efficacy, collateral.editing.train_hypernetwork\n"
        "import collateral.models.language_model, collateral.editing.prepare.second_moments\n"
        "import collateral.pipeline.edit_singly, collateral.data.corpus\n"
        "sys.exit(str(asked) if asked else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def end(others):
    for process, _ in others:
        process.kill()
        process.wait()
        process.stdout.close()
