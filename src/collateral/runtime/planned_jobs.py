"""The jobs that a dry run plans, written by the workflow for the command line. Torch-free."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from collateral.io.atomic import read_json, write_json

PLAN = "COLLATERAL_PLAN"
"""Environment variable: the file that a dry run writes its jobs to."""


@dataclass(frozen=True)
class PlannedJob:
    """A job that would run, and why.

    Attributes:
        rule: its name.
        message: what the job does, in words.
        outputs: all its files.
        missing: outputs that do not exist.
        incomplete: outputs that an interrupted job left.
        changed: inputs whose content changed.
        rebuilt: inputs that another planned job rebuilds.
        other_inputs: its inputs are other files than before.
        other_environment: the definition of its environment changed.
        forced: the command line asks for it.
        old, new: values of parameters, as Python writes them, that the other side does not have.
    """

    rule: str
    message: str
    outputs: list[str]
    missing: list[str]
    incomplete: list[str]
    changed: list[str]
    rebuilt: list[str]
    other_inputs: bool
    other_environment: bool
    forced: bool
    old: list[str]
    new: list[str]


def write_plan(jobs: Iterable[PlannedJob], path: Path) -> None:
    """Write the jobs of a plan."""
    write_json(path, {"jobs": [asdict(job) for job in jobs]})


def read_plan(path: Path) -> list[PlannedJob]:
    """Return the jobs of a plan."""
    return [PlannedJob(**row) for row in read_json(path)["jobs"]]
