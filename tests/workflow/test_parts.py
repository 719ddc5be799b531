"""Parts of a study, single edits, and data that come from a mirror."""

import hashlib
import json

import polars as pl
import pytest

from smallstudy import INFERRED, RECORDS, make_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_single_edits_start_from_the_unedited_model(copy):
    """The first is that of the chain, to the last bit; a later one knows nothing of those before it."""
    study, editors = copy.config["study"], copy.config["editors"]
    editors["rome-alone"] = {"method": "rome", "editing": "single"}
    parts = {
        "chain": {"editors": ["rome"]},
        "alone": {"editors": ["rome-alone"], "checkpoints": [2, 3], "suites": []},
    }
    copy.configure(editors=editors, study={**study, "parts": parts})
    planned = copy.planned()
    new = {f"Edit tiny with rome-alone, one at a time, up to fact {n:04d}" for n in (2, 3)}
    assert {job for job in planned if job.startswith("Edit ")} == new
    assert not [job for job in planned if job.startswith(("Evaluate", "Weigh"))]
    done = copy.snakemake("--", INFERRED)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    tables = {path.stem: pl.read_parquet(path) for path in (copy.folder / "results/tables").glob("*.parquet")}
    probes = tables["efficacy"].filter(when="after_edit").drop("editor", "edits")
    own = tables["efficacy"].filter(when="after_edit")["editor"]
    chain, alone = (
        probes.filter(own == name).sort("position", "kind", "probe") for name in ("rome", "rome-alone")
    )
    assert chain.filter(position=1).equals(alone.filter(position=1))
    assert not chain.filter(position=3).equals(alone.filter(position=3))
    assert alone["position"].unique().sort().to_list() == [1, 2, 3]
    first = tables["single-weights"].filter(position=1, statistic="manhattan")["value"].to_list()
    assert first == tables["weights"].filter(editor="rome", edits=1, statistic="manhattan")["value"].to_list()
    assert tables["single-weights"]["position"].unique().sort().to_list() == [1, 2, 3]


def test_a_study_of_single_edits_alone_has_a_report(copy):
    editors = {"rome-alone": {"method": "rome", "editing": "single"}}
    copy.configure(
        editors=editors, study={**copy.config["study"], "editors": ["rome-alone"], "checkpoints": [1]}
    )
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert "rome-alone" in (copy.folder / "results/report/edits.html").read_text()


def test_a_data_set_comes_from_a_mirror_after_the_same_check(tmp_path, tiny_folder):
    project = make_project(tmp_path / "study", tiny_folder)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    content = json.dumps(RECORDS).encode()
    (mirror / "questions.json").write_bytes(content)
    source = {"url": "https://data.example/questions.json", "sha256": hashlib.sha256(content).hexdigest()}
    sets = {"harbours": {"loader": "zsre", "source": source, "known_only": False, "training": source}}
    project.configure(datasets=sets, study={**project.config["study"], "datasets": ["harbours"]})
    target = "resources/datasets/harbours.parquet"
    done = project.snakemake("--", target)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "questions.json" in said
    assert "mirror" in said
    project.configure(mirror="../mirror")
    done = project.snakemake("--", target, "resources/datasets/training/harbours.parquet")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert pl.read_parquet(project.folder / target)["subject"].to_list() == [r["subject"] for r in RECORDS]
    place = project.folder / "resources/downloads" / source["sha256"][:16] / "questions.json"
    assert place.read_bytes() == content
    project.configure(mirror="../elsewhere")
    (tmp_path / "elsewhere").mkdir()
    assert "Read the facts of harbours" not in project.planned("--", target)
    (mirror / "questions.json").write_bytes(content + b" ")
    for made in (place, project.folder / target):
        made.unlink()
    project.configure(mirror="../mirror")
    done = project.snakemake("--", target)
    assert done.returncode != 0
    assert "sha256" in done.stdout + done.stderr
