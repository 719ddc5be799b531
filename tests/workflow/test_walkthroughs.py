"""CONTRIBUTING's walkthroughs, with the code that stands there: what each adds works, and reruns nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smallstudy import RECORDS, ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

REPORT = {"Draw the report: results/report/index.html"}
TABLES = {"Gather all results into tidy tables", "Infer what the tables show"} | REPORT
WALKTHROUGHS = dict(
    re.findall(
        r"^## Add an? ([a-z ]+)\n(.*?)(?=^## |\Z)",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
)


def merge(base: dict, changes: dict) -> dict:
    """The keys of both, those of `changes` over those of `base`, at every level."""
    return {
        **base,
        **{
            key: merge(base[key], value)
            if isinstance(value, dict) and isinstance(base.get(key), dict)
            else value
            for key, value in changes.items()
        },
    }


def follow(project, title: str) -> None:
    """Write the files of a walkthrough and its part of the config, and run the checks on them."""
    blocks = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", WALKTHROUGHS[title], flags=re.DOTALL | re.MULTILINE)
    code = []
    for name, text in blocks:
        path = project.folder / ("config/config.yaml" if name == "config" else name)
        if name == "config":
            text = yaml.safe_dump(
                merge(yaml.safe_load(path.read_text()), yaml.safe_load(text)), sort_keys=False
            )
        else:
            assert not path.exists(), name
        path.write_text(text, encoding="utf-8")
        code += [str(path)] if path.suffix == ".py" else []
    assert blocks
    for check in (["check"], ["format", "--check"]) if code else ():
        ruff = [sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", *code]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def study_with(project, **changes: list[str]) -> None:
    """Add names to lists of the study's section: `editors=["shrink"]`."""
    study = project.config["study"]
    project.configure(study={**study, **{key: [*study[key], *names] for key, names in changes.items()}})


def build(project, path: str) -> Path:
    """Run the jobs that make a file."""
    done = project.snakemake("--", path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project.folder / path


def checkpoints(editor: str, dataset: str = "embedded") -> set[str]:
    """The jobs of an editor's two checkpoints."""
    texts = (
        "Edit tiny with {e} up to {n} edits",
        "Probe all edits of {e} after {n} edits",
        "Measure the drift of {e} after {n} edits",
        "Weigh {e} after {n} edits",
        "Evaluate {e} after {n} edits on two",
    )
    return {text.format(e=editor, n=f"{edits:04d}") for edits in (1, 3) for text in texts}


def edited(editor: str) -> str:
    return f"results/edited/tiny/embedded/seed-0/{editor}/edits-0001/delta.parquet"


def test_every_walkthrough_is_followed():
    assert set(WALKTHROUGHS) == {"method", "regulariser", "task", "data set", "figure"}


def test_a_method(copy):
    follow(copy, "method")
    assert copy.planned() <= REPORT  # the page shows the settings
    models = copy.config["models"]
    models["tiny"]["methods"]["shrink"] = {"layer": 1}
    copy.configure(models=models)
    assert copy.planned() <= REPORT
    study_with(copy, editors=["shrink"])
    assert copy.planned() == checkpoints("shrink") | TABLES
    assert build(copy, edited("shrink")).stat().st_size > 0


def test_a_regulariser(copy):
    follow(copy, "regulariser")
    assert copy.planned() <= REPORT
    study_with(copy, editors=["rome-half"])
    assert copy.planned() == checkpoints("rome-half") | TABLES
    assert build(copy, edited("rome-half")).stat().st_size > 0


def test_a_task(copy):
    follow(copy, "task")
    assert copy.planned() <= REPORT
    study_with(copy, suites=["colours"])
    evaluations = {
        f"Evaluate {editor} after {edits:04d} edits on colours"
        for editor in ("noop", "rome", "rome-rect")
        for edits in (1, 3)
    }
    assert copy.planned() == evaluations | {"Evaluate the unedited tiny on colours"} | TABLES
    scores = json.loads(build(copy, "results/unedited/tiny/abilities/colours.json").read_text())
    assert "embedded-colours" in json.dumps(scores)


def test_a_data_set(copy):
    follow(copy, "data set")
    names = {"subject": "subject", "prompt": "src", "new": "alt"}
    records = [
        {**{new: record[old] for new, old in names.items()}, "true": record["answers"][0]}
        for record in RECORDS
    ]
    (copy.folder / "triples.json").write_text(json.dumps(records))
    assert copy.planned() <= REPORT
    study_with(copy, datasets=["triples"])
    planned = copy.planned_jobs()
    read = {"Read the facts of triples", "Draw the order of the edits of triples, seed 0"}
    assert read <= set(planned)
    assert not any("embedded" in job for job in planned)
    assert planned.count("Edit tiny with rome up to 0001 edits") == 1  # that of the new data set alone
    assert build(copy, "resources/datasets/triples.parquet").stat().st_size > 0


def test_a_figure(copy):
    follow(copy, "figure")
    assert copy.planned() == REPORT
    draw = (
        "from pathlib import Path; import polars as pl\n"
        "from collateral.report.charts.figure import find_instances; from collateral.report.figures import registry\n"
        "tables = {path.stem: pl.read_parquet(path) for path in Path('results/tables').glob('*.parquet')}\n"
        "figure = next(figure for figure in registry.FIGURES if figure.name == 'kept')\n"
        "(name, title, own), *_ = find_instances(tables, figure)\n"
        "print(figure.chart(own, ()).to_dict()['$schema'], figure.caption(own))\n"
    )
    command = [sys.executable, "-c", draw]
    done = subprocess.run(
        command, cwd=copy.folder, env=copy.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rome-rect keeps least" in done.stdout
