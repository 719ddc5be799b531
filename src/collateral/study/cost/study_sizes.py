"""The sizes of a study beside its settings, as far as they can be read from here. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from collateral.data.registry import read_about
from collateral.io.parquet import read_table
from collateral.study import paths
from collateral.study.cost.model_shape import Shape, read_shape
from collateral.study.design import Study
from collateral.tasks.token_counts import TaskCount, suite_counts

# A model of unknown shape asks a cluster for what GPT-2 large would (774 M parameters); plans leave its costs out.
_UNKNOWN = Shape(layers=36, hidden=1280, intermediate=5120, vocabulary=50257, keys=1280, positions=1024)


@dataclass(frozen=True)
class Sizes:
    """What is known of a study beside its settings.

    Attributes:
        shapes: model → its shape, where it is known.
        suites: suite → what each of its tasks asks.
        probes: data set → probes of a fact: the edit itself, paraphrases, neighbourhood, portability.
        facts: data set → number of facts, where the table is there.
    """

    shapes: Mapping[str, Shape | None]
    suites: Mapping[str, Sequence[TaskCount]]
    probes: Mapping[str, float]
    facts: Mapping[str, int]

    def shape(self, model: str) -> Shape:
        """Return a model's shape, or one to ask a cluster for where it is not known."""
        return self.shapes.get(model) or _UNKNOWN


def read_sizes(study: Study, folders: Mapping[str, Sequence[Path]]) -> Sizes:
    """Return shapes, suites, probes and facts; a data set that is not loaded yet has the usual number of probes.

    Args:
        study: checked.
        folders: suite → folders with task files.

    Raises:
        CollateralError: a task file is broken, or a downloaded config.json is.
    """
    settings = study.settings
    probes: dict[str, float] = {}
    facts: dict[str, int] = {}
    for name, dataset in settings["datasets"].items():
        probes[name] = read_about(dataset["loader"]).probes
        if (table := Path(paths.facts(name))).is_file():
            lists = [
                pl.col(kind).list.len().mean() for kind in ("paraphrases", "neighborhood", "portability")
            ]
            *means, facts[name] = read_table(table, "a facts file").select(*lists, count=pl.len()).row(0)
            probes[name] = 1 + sum(means)
    return Sizes(
        shapes={
            name: read_shape(Path(paths.manifest(name)), model) for name, model in settings["models"].items()
        },
        suites={
            name: suite_counts(settings["suites"][name], folders[name]) for name in study.names("suites")
        },
        probes=probes,
        facts=facts,
    )


def list_assumptions(study: Study, sizes: Sizes) -> list[str]:
    """Return what had to be assumed, as sentences."""
    tasks = sorted({task.name for counts in sizes.suites.values() for task in counts if not task.known})
    datasets = [name for name in study.names("datasets") if name not in sizes.facts]
    notes = {
        "Assumed to have 2,000 items of 150 tokens, since nothing is known of them": tasks,
        "Not loaded yet, so that the number of probes of a fact is assumed": datasets,
    }
    return [f"{note}: {', '.join(names)}" for note, names in notes.items() if names]
