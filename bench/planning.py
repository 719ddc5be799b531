"""Time Snakemake's building of a study's graph against a hand-written list of the same files, with nothing to do.

The study has 1,000 to 10,000 jobs: the embedded facts, four editors, ten checkpoints, two suites, and as many seeds
as it takes. All its outputs are there as placeholders, and Snakemake has recorded them. From the graph that it built,
the same is written by hand, so to speak: rules without a function, in two forms, whose graphs must have the same jobs
and files. All three are asked in turns what is to do, and must answer: nothing.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collateral.data.facts import write_facts
from collateral.data.loaders import embedded
from collateral.io.versions import machine

ROOT = Path(__file__).parents[1]
SEEDS = (4, 12, 40)  # about 250 jobs each
LISTED = 12  # the most seeds for which there is a rule for each job: more rules take minutes each time
ROUNDS = 3
MADE = 1.7e9  # when every file was, in seconds since 1970
NOTHING = "Nothing to be done (all requested files are present and up to date)."

# Snakemake, that writes down the graph which it has built, and with RECORD also records all jobs as done.
DRIVER = """
import json, sys
from snakemake.cli import main
from snakemake.dag import DAG
from snakemake.io import _IOFile

target, record = sys.argv.pop(1), sys.argv.pop(1) == "RECORD"
postprocess, checksum, sums = DAG.postprocess, _IOFile.checksum, {}

async def summed(self, *args, **named):
    if str(self) not in sums:  # thousands of jobs read the same files
        sums[str(self)] = await checksum(self, *args, **named)
    return sums[str(self)]

async def listed(self, *args, **named):
    await postprocess(self, *args, **named)
    rows = [
        {
            "rule": job.rule.name,
            "wildcards": dict(job.wildcards_dict or {}),
            "input": list(map(str, job.input)),
            "output": list(map(str, job.output)),
            "log": list(map(str, job.log)),
            "benchmark": str(job.benchmark) if job.benchmark else "",
            "params": [[name, repr(value)] for name, value in job.params.items()],
            "conda": bool(job.rule.conda_env),
        }
        for job in self.jobs
    ]
    with open(target, "w") as file:
        json.dump(rows, file)
    for job in self.jobs if record else ():
        await self.workflow.persistence.finished(job)

DAG.postprocess, _IOFile.checksum = listed, summed
main()
"""


@dataclass(frozen=True)
class Asked:
    """A workflow that is asked what is to do.

    Attributes:
        name: of the form.
        folder: where it runs.
        options: for Snakemake.
    """

    name: str
    folder: Path
    options: tuple[str, ...] = ()

    def snakemake(self, *command: str) -> str:
        """Return what a process of Snakemake says; it must end well."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, *command, "--cores", "1", *self.options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{self.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout + done.stderr

    def listed(self, recorded: bool = False) -> list[dict[str, Any]]:
        """Return the jobs of its graph; if asked for, Snakemake has all of them in its records afterwards."""
        target = self.folder / "graph.json"
        self.snakemake("-c", DRIVER, str(target), "RECORD" if recorded else "-", "-n", "--quiet")
        found: list[dict[str, Any]] = json.loads(target.read_text())
        return found

    def seconds(self) -> tuple[float, float]:
        """Return processor and wall-clock seconds of one dry run, in which there must be nothing to do."""
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        said = self.snakemake("-m", "snakemake", "-n")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if NOTHING not in said or "missing provenance" in said:
            sys.exit(f"{self.name}: there is something to do: {said[-2000:]}")
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return used, time.perf_counter() - begun


def config(seeds: int) -> dict[str, Any]:
    """Return a study of about 250 jobs a seed."""
    return {
        "study": {
            "title": "Many jobs",
            "models": ["smollm2-135m"],
            "datasets": ["embedded"],
            "seeds": list(range(seeds)),
            "editors": ["rome", "rome-rect-40", "memit", "alphaedit"],
            "checkpoints": [1, 2, 5, 10, 20, 30, 50, 70, 100, 150],
            "suites": ["feelings", "names"],
        },
        "suites": {
            "feelings": {"tasks": ["embedded-sentiment", "embedded-english"]},
            "names": {"tasks": ["embedded-ner"]},
        },
    }


def project(folder: Path) -> Path:
    """Return a folder with the options that the project's own has."""
    folder.mkdir()
    (folder / "profiles").symlink_to(ROOT / "profiles")
    return folder


def placed(jobs: Sequence[dict[str, Any]], folder: Path) -> None:
    """Put a placeholder, which says its own name, where each output and record is; the facts are real."""
    for job in jobs:
        for name in filter(None, [*job["output"], job["benchmark"]]):
            path = folder / name
            if name == "results/figures":  # a directory
                path = path / "placeholder"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    facts = folder / "resources/datasets/embedded.parquet"
    write_facts(embedded.load(ROOT / "resources/embedded"), facts, {"loader": "embedded"})
    for path in folder.rglob("*"):
        os.utime(path, (MADE, MADE), follow_symlinks=False)  # none is newer than what it is made of


def finished_study(folder: Path, seeds: int) -> tuple[Asked, list[dict[str, Any]]]:
    """Return a study in which nothing is to do, and its jobs."""
    (project(folder) / "study.yaml").write_text(yaml.safe_dump(config(seeds)))
    ours = Asked("ours", folder, ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml"))
    jobs = ours.listed()
    placed(jobs, folder)
    ours.listed(recorded=True)
    return ours, jobs


def written(
    ours: Asked, folder: Path, name: str, rules: Iterable[str], jobs: Sequence[dict[str, Any]]
) -> Asked:
    """Return the same study as a Snakefile, in which nothing is to do; its graph must be the same.

    Raises:
        SystemExit: other jobs, or jobs with other files.
    """
    (project(folder) / "Snakefile").write_text("\n\n".join(rules) + "\n")
    (folder / "environment.yaml").write_text("dependencies: []\n")
    for part in ("results", "resources", "benchmarks"):
        shutil.copytree(ours.folder / part, folder / part)
    made = Asked(name, folder)
    found = made.listed(recorded=True)
    if edges(found) != edges(jobs):
        sys.exit(f"{name}: its graph has other jobs, or other files")
    return made


def edges(jobs: Sequence[dict[str, Any]]) -> list[tuple[list[str], list[str]]]:
    """Return outputs and inputs of all jobs."""
    return sorted((sorted(job["output"]), sorted(set(job["input"]))) for job in jobs)


def rule_text(name: str, job: dict[str, Any]) -> str:
    """Return a job, or a pattern of jobs, as a rule without functions: as many parameters, each of them a text."""
    outputs = [f"directory({one!r})" if one == "results/figures" else repr(one) for one in job["output"]]
    parts = {
        "input": list(map(repr, job["input"])),
        "output": outputs,
        "log": list(map(repr, job["log"])),
        "benchmark": [repr(job["benchmark"])] if job["benchmark"] else [],
        "conda": [repr("environment.yaml")] if job["conda"] else [],
        "params": [f"{key}='{job['rule']} {key}'" for key, _ in job["params"]],
        "resources": ["mem_mb=1000", "runtime=10", "gpu=0"] if job["output"] else [],
        "shell": [repr("true")] if job["output"] else [],
    }
    lines = [f"rule {name}:"]
    for part, entries in parts.items():
        alone = part in {"benchmark", "conda", "shell"}
        lines += (
            [f"    {part}:", *(f"        {one}{'' if alone else ','}" for one in entries)] if entries else []
        )
    return "\n".join(lines)


def listed_rules(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Return one rule a job, with all its files spelt out."""
    ordered = sorted(jobs, key=lambda job: job["rule"] != "all")
    return [
        rule_text(job["rule"] if job["rule"] == "all" else f"{job['rule']}_{number}", job)
        for number, job in enumerate(ordered)
    ]


def pattern_rules(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the fewest rules that name all files, with wildcards for seeds and, where they agree, for editors."""
    rules = [rule_text("all", job) for job in jobs if job["rule"] == "all"]
    rules.insert(0, "wildcard_constraints:\n    seed=r'\\d+',\n    editor=r'[a-z0-9-]+',")
    left = [job for job in jobs if job["rule"] != "all"]
    for names in (("seed", "editor"), ("seed",), ()):
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for job in left:
            own = patterned(job, names)
            groups[json.dumps(own["output"])].append({**own, "job": job})
        left = []
        for alike in groups.values():
            if len({json.dumps(one["input"]) for one in alike}) == 1:
                rules.append(rule_text(f"{alike[0]['rule']}_{len(rules)}", alike[0]))
            else:
                left += [one["job"] for one in alike]
    return rules


def patterned(job: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a job with wildcards in its paths."""
    values = {name: str(job["wildcards"][name]) for name in names if name in job["wildcards"]}

    def pattern(path: str) -> str:
        segments = []
        for segment in path.split("/"):
            stem, dot, ending = segment.partition(".")
            if stem == f"seed-{values.get('seed')}":
                stem = "seed-{seed}"
            elif segment == values.get("editor"):
                stem = "{editor}"
            segments.append(f"{stem}{dot}{ending}")
        return "/".join(segments)

    paths = {part: [pattern(path) for path in job[part]] for part in ("input", "output", "log")}
    return {**job, **paths, "benchmark": pattern(job["benchmark"])}


def compared(folder: Path, seeds: int) -> str:
    """Return one row of the table."""
    ours, jobs = finished_study(folder / "ours", seeds)
    forms = [ours, written(ours, folder / "patterns", "patterns", pattern_rules(jobs), jobs)]
    if seeds <= LISTED:
        forms.append(written(ours, folder / "files", "files", listed_rules(jobs), jobs))
    used: dict[str, list[tuple[float, float]]] = {one.name: [] for one in forms}
    for _ in range(ROUNDS):
        for one in forms:
            used[one.name].append(one.seconds())
    inputs = sum(len(job["input"]) for job in jobs)
    mine, wall = (statistics.median(column) for column in zip(*used["ours"], strict=True))
    cells = [f"{len(jobs):,}", f"{inputs:,}", f"{mine:.1f} s ({wall:.1f} s)"]
    for one in forms[1:]:
        theirs = used[one.name]
        ratios = [own[0] / other[0] for own, other in zip(used["ours"], theirs, strict=True)]
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells += [f"{statistics.median(other[0] for other in theirs):.1f} s", span]
    return f"| {' | '.join([*cells, *['-'] * (7 - len(cells))])} |"


def main() -> None:
    """Print the table; numbers on the command line are other numbers of seeds."""
    about = machine()
    sys.stdout.write(
        f"{about['processor']}, a dry run with nothing to do, {ROUNDS} rounds in turns, processor time\n\n"
        "| jobs | inputs | ours (wall clock) | rules with wildcards | ours / it | a rule for each job | ours / it |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for seeds in map(int, sys.argv[1:] or SEEDS):
        sys.stdout.flush()
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{compared(Path(folder), seeds)}\n")


if __name__ == "__main__":
    main()
