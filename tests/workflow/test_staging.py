"""What a study needs a network for is brought ahead; then it runs without one. Studies share it, too."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from test_parts import RECORDS

from loopback import serving
from smallstudy import make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

BODY = json.dumps(RECORDS).encode()
SHA = hashlib.sha256(BODY).hexdigest()
CUT = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


@pytest.fixture(scope="module")
def cut():
    """The command that runs another without a network."""
    try:
        possible = subprocess.run([*CUT, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("this machine allows no network namespace (unshare --net)")
    return CUT


def small(folder, tiny_folder, url, text):
    """One editor, one checkpoint; facts from an address, a text from a data set of the hub's kind."""
    project = make_project(folder, tiny_folder)
    config = project.config
    source = {"url": url, "sha256": SHA}
    rows = {"hub": str(text), "revision": "0" * 40, "split": "train", "column": "text"}
    project.configure(
        datasets={"harbours": {"loader": "zsre", "source": source, "known_only": False}},
        study={**config["study"], "datasets": ["harbours"], "editors": ["rome"], "checkpoints": [1]},
        moments={"text": rows},
        drift={"tokens": 64, "sequence_length": 16},
    )
    return project


@pytest.fixture
def text(tmp_path):
    """A data set as the hub holds it, in a folder."""
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = [line for n in range(60) for line in (f"The oak number {n} stands by the harbour.", "")]
    pl.DataFrame({"text": rows}).write_parquet(folder / "train.parquet")
    return folder


def run(project, *command, before=()):
    return subprocess.run(
        [*before, sys.executable, *command],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def started(project, *args):
    return project.started(*args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


SNAKEMAKE = ("-m", "snakemake", "--cores", "1", "--configfile", "study.yaml")
STAGE = ("-m", "collateral.cli", "stage", "--configfile", "study.yaml")


def test_without_staging_one_line_says_that_the_network_is_lacking(tmp_path, tiny_folder, text, cut):
    with serving(BODY) as served:
        project = small(tmp_path / "study", tiny_folder, served.url, text)
        done = run(project, *SNAKEMAKE, before=cut)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR:")]
    assert len(lines) == 1, done.stdout + done.stderr
    assert "cannot be read" in lines[0]
    assert "run `make stage` where there is a network" in lines[0]
    assert not list((project.folder / "results").glob("edited/**/*.parquet"))


def test_a_staged_study_runs_to_its_report_without_a_network(tmp_path, tiny_folder, text, cut):
    with serving(BODY) as served:
        project = small(tmp_path / "study", tiny_folder, served.url, text)
        done = run(project, *STAGE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = done.stdout.splitlines()[-1]
    assert said.startswith("Staged: 1 model, 1 data set, 1 text: ")
    assert "proven in a network namespace without any interface that the rest needs no network" in said
    assert said.endswith("Next: HF_HUB_OFFLINE=1 snakemake --profile profiles/slurm --configfile study.yaml")
    (brought,) = (project.folder / "resources/texts").glob("*.txt")
    assert brought.read_text().count("\n\n") == 60
    (text / "train.parquet").unlink()  # nothing reads it again

    table = project.folder / "resources/datasets/harbours.parquet"
    kept = table.read_bytes()
    table.unlink()
    done = run(project, *STAGE, "--part", "prove", before=cut)
    assert done.returncode != 0
    assert "stage: jobs are left that need the network: 1 of load_facts" in done.stderr
    table.write_bytes(kept)

    done = run(project, *SNAKEMAKE, before=cut)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert (project.folder / "results/report/index.html").is_file()
    assert pl.read_parquet(project.folder / "results/tables/drift.parquet").height > 0


def share(project, shared):
    for name in ("models", "downloads", "datasets", "benchmarks", "texts"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        (project.folder / "resources" / name).symlink_to(shared / name)


def test_two_studies_that_share_resources_start_at_once(tmp_path, tiny_folder, text):
    gate, arrived = threading.Event(), threading.Event()

    def stalled():
        arrived.set()
        return ("stall", 20, gate)

    shared = tmp_path / "shared"
    with serving(BODY) as served:
        served.script = [stalled]
        projects = [small(tmp_path / name, tiny_folder, served.url, text) for name in ("a", "b")]
        for project in projects:
            share(project, shared)
        first = started(projects[0], "staged")
        assert arrived.wait(240)
        second = started(projects[1], "staged")
        log = projects[1].folder / "logs/download" / SHA[:16] / "facts.json.log"
        for _ in range(2400):
            if log.is_file() and "is being filled by another process" in log.read_text():
                break
            threading.Event().wait(0.1)
        gate.set()
        said = [process.communicate(timeout=240)[0] for process in (first, second)]
        assert first.returncode == second.returncode == 0, said
        assert "is there already" in log.read_text()
        assert served.asked == [None, None]  # both by the first process, whose transfer broke off
    # a third comes later: it has no record of these files and nothing to bring
    third = small(tmp_path / "c", tiny_folder, served.url, text)
    share(third, shared)
    done = third.snakemake("--", "staged")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (third.folder / "logs/download_model").exists()

    # what is meant otherwise by a shared name is refused before anything is done
    sets = third.config["datasets"]
    sets["harbours"]["limit"] = 2
    third.configure(datasets=sets)
    before = (shared / "datasets/harbours.parquet").read_bytes()
    done = third.snakemake("-n", "--", "staged")
    assert done.returncode != 0
    assert "is shared with other studies" in done.stdout + done.stderr
    assert "was made from limit: null, but this study asks for limit: 2" in done.stdout + done.stderr
    assert (shared / "datasets/harbours.parquet").read_bytes() == before


def test_a_job_that_reads_the_shared_model_is_not_disturbed_by_a_study_that_starts(
    tmp_path, tiny_folder, text
):
    """Its code has changed, so that Snakemake runs the download again; nothing shared is removed or replaced."""
    shared = tmp_path / "shared"
    with serving(BODY) as served:
        project = small(tmp_path / "a", tiny_folder, served.url, text)
        share(project, shared)
        assert project.snakemake("--", "staged").returncode == 0
        stamps = {path: path.stat().st_ino for path in shared.glob("**/*") if path.is_file()}
        project.edit("src/collateral/models/download.py", "length=1 << 20", "length=1 << 21")
        assert project.planned("--", "staged") >= {"Fetch the model tiny"}
        done = project.snakemake("--", "staged")
        assert done.returncode == 0, done.stdout + done.stderr
    manifest = shared / "models/tiny/manifest.json"
    assert manifest.stat().st_ino == stamps[manifest]
    assert Path(shared / "models/tiny/model.safetensors").is_symlink()


def test_changed_download_code_that_is_staged_by_itself_reruns_nothing_else(copy):
    copy.edit("src/collateral/models/download.py", "length=1 << 20", "length=1 << 21")
    copy.edit(
        "workflow/scripts/load_facts.py",
        "first = Path(snakemake.input[0])",
        "first = Path(str(snakemake.input[0]))",
    )
    stale = {"Fetch the model tiny", "Read the facts of embedded"}
    assert copy.planned("--", "staged") - stale == {"All that needs a network is there"}
    assert "Edit tiny with rome up to 0001 edits" in copy.planned()
    done = copy.snakemake("--", "staged")
    assert done.returncode == 0, done.stdout + done.stderr
    assert copy.planned() == set()
