"""Print what a study costs: jobs, hours, memory and disk of each stage. It runs nothing.

Called by `make plan STUDY=…`: merges the configs as Snakemake does, asks Snakemake what is still to do, and leaves
the reckoning to `collateral.plan`.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from collateral import places
from collateral.errors import CollateralError
from collateral.jobs import only_mirrored, study_jobs
from collateral.plan import Machine, make_plan
from collateral.plantable import card_notes, plan_text
from collateral.rates import read_records
from collateral.shapes import Shape, shape_of_config, shape_of_settings
from collateral.stagework import Sizes
from collateral.study import Study
from collateral.studyconfig import mirror, read_study, study_file, task_folders
from collateral.taskcounts import suite_counts

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print the plan of the study that the command line names."""
    parser = argparse.ArgumentParser(description="What a study costs before it is started.")
    parser.add_argument("--study", default="", help="a name in config/studies; none is the default study")
    parser.add_argument("--configfile", type=Path, help="a study's file elsewhere")
    parser.add_argument(
        "--config", nargs="*", default=[], metavar="KEY=VALUE", help="as Snakemake's, e.g. mirror=…"
    )
    parser.add_argument(
        "--benchmarks", type=Path, nargs="*", default=[Path("benchmarks")], help="recorded jobs"
    )
    parser.add_argument("--gpu-speed", type=float, default=1, help="of a GPU, in A100s")
    parser.add_argument(
        "--cpu-speed", type=float, default=1, help="of a core, in those of the measured server"
    )
    given = parser.parse_args()
    try:
        sys.stdout.write(planned(given))
    except CollateralError as error:
        sys.exit(f"plan: {error}")


def planned(given: argparse.Namespace) -> str:
    """Return the plan as text."""
    own = study_file(ROOT, given.study) if given.study else given.configfile
    study = read_study(ROOT, own, given.config)
    folders, found = task_folders(study, ROOT), mirror(study, ROOT)
    waiting, reason = outputs_to_make(own, given.config)
    records = {job: one for folder in given.benchmarks for job, one in read_records(folder).items()}
    sizes, notes = sizes_of(study, folders)
    machine = Machine(records, {"cuda": given.gpu_speed, "cpu": given.cpu_speed})
    plan = make_plan(study, study_jobs(study, folders, found), sizes, machine, waiting)
    notes += card_notes(plan, {model: study.cards(model) for model in study.names("models")})
    unreachable = only_mirrored(study, folders, found)
    if unreachable:
        notes.insert(0, f"Only a mirror can have, and none is set that does: {', '.join(unreachable)}")
    if reason:
        notes.insert(0, f"What is still to do is not known, so all of it counts as to do: {reason}")
    return plan_text(plan, study.settings["study"]["title"], limits(), notes)


def outputs_to_make(own: Path | None, pairs: list[str]) -> tuple[frozenset[str] | None, str]:
    """Return the files that Snakemake would make now; None and its reason where it cannot say."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--summary"]
    command += ["--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", str(own)] if own else []
    command += ["--config", *pairs] if pairs else []
    offline = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    if done.returncode != 0:
        return None, reason(done.stderr)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    header = next((row for row in rows if row[0] == "output_file"), None)
    if header is None:
        return None, "Snakemake's summary has no table"
    file, plan = header.index("output_file"), header.index("plan")
    body = rows[rows.index(header) + 1 :]
    return frozenset(row[file] for row in body if len(row) == len(header) and row[plan] != "no update"), ""


def reason(text: str) -> str:
    """Return the line of Snakemake's messages that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = re.match(r"\w*(?:Error|Exception)(?: in .*)?:\s*(.*)$", line)
        if found and (found[1] or following):
            return found[1] or following
    return lines[-1] if lines else "Snakemake said nothing"


def sizes_of(study: Study, folders: dict[str, list[Path]]) -> tuple[Sizes, list[str]]:
    """Return shapes, suites and facts as far as they can be seen from here, and what had to be assumed."""
    shapes = {name: shape(name, own) for name, own in study.settings["models"].items()}
    suites = {
        name: suite_counts(own, folders[name])
        for name, own in study.settings["suites"].items()
        if name in study.names("suites")
    }
    probes: dict[str, float] = {}
    facts: dict[str, int] = {}
    for name, own in study.settings["datasets"].items():
        table = Path(places.facts(name))
        if table.is_file():
            probes[name], facts[name] = counted(table)
        else:
            probes[name] = PROBES.get(own["loader"], 5)
    notes = []
    guessed = sorted({task.name for counts in suites.values() for task in counts if not task.known})
    if guessed:
        notes.append(
            f"Assumed to have 2,000 items of 150 tokens, for nothing is known of them: {', '.join(guessed)}"
        )
    unread = [name for name in study.names("datasets") if name not in facts]
    if unread:
        notes.append(f"Not read yet, so that probes of a fact are assumed: {', '.join(unread)}")
    return Sizes(shapes, suites, probes, facts), notes


# Probes of a fact in the usual files: the edit, paraphrases, neighbourhood, portability.
PROBES = {"zsre": 4, "counterfact": 13, "embedded": 5, "mquake": 5, "knowedit": 6}


def shape(name: str, settings: dict[str, Any]) -> Shape | None:
    """Return a model's shape: of its downloaded config.json, else of the config."""
    downloaded = Path(f"resources/models/{name}/config.json")
    return shape_of_config(downloaded) if downloaded.is_file() else shape_of_settings(settings)


def counted(table: Path) -> tuple[float, int]:
    """Return probes of a fact (mean) and number of facts of a data set's table."""
    lists = [pl.col(name).list.len().mean() for name in ("paraphrases", "neighborhood", "portability")]
    means = pl.read_parquet(table).select(*lists, facts=pl.len()).row(0)
    return 1 + sum(means[:3]), int(means[3])


def limits() -> dict[str, dict[str, float]]:
    """Return rule → `mem_mb` and `runtime` that the rules ask for."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), flags=re.M | re.S):
            pairs = re.findall(r"^        (mem_mb|runtime)=(\d+),", body, flags=re.M)
            found[rule] = {name: float(value) for name, value in pairs}
    return found


if __name__ == "__main__":
    main()
