"""The sizes of a study beside its settings, as far as they can be seen from here. Torch-free."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.io.parquet import read_table
from collateral.study import paths as places
from collateral.study.cost.model_shape import Shape, shape_of_config, shape_of_settings
from collateral.study.cost.rule_work import Sizes
from collateral.study.design import Study
from collateral.tasks.token_counts import suite_counts

# ASSUME: probes of a fact in the usual files: the edit, paraphrases, neighbourhood, portability.
PROBES = {"zsre": 4, "counterfact": 13, "embedded": 5, "mquake": 5, "knowedit": 6}
_OTHER = 5  # of any other loader's


def sizes_of(study: Study, folders: Mapping[str, Sequence[Path]]) -> Sizes:
    """Return shapes, suites, probes and facts; a data set that is not read yet has the usual number of probes.

    Args:
        study: checked.
        folders: suite → folders with task files.

    Raises:
        CollateralError: a task file is broken, or a downloaded config.json is.
    """
    own = study.settings
    shapes = {name: model_shape(name, settings) for name, settings in own["models"].items()}
    suites = {name: suite_counts(own["suites"][name], folders[name]) for name in study.names("suites")}
    tables = {name: Path(places.facts(name)) for name in own["datasets"]}
    counted = {name: _counted(table) for name, table in tables.items() if table.is_file()}
    probes = {name: PROBES.get(one["loader"], _OTHER) for name, one in own["datasets"].items()}
    return Sizes(
        shapes,
        suites,
        probes={**probes, **{name: mean for name, (mean, _) in counted.items()}},
        facts={name: number for name, (_, number) in counted.items()},
    )


def assumed(study: Study, sizes: Sizes) -> list[str]:
    """Return what had to be assumed, as sentences."""
    notes = []
    guessed = sorted({task.name for counts in sizes.suites.values() for task in counts if not task.known})
    if guessed:
        notes.append(
            f"Assumed to have 2,000 items of 150 tokens, for nothing is known of them: {', '.join(guessed)}"
        )
    unread = [name for name in study.names("datasets") if name not in sizes.facts]
    if unread:
        notes.append(f"Not read yet, so that probes of a fact are assumed: {', '.join(unread)}")
    return notes


def model_shape(name: str, settings: Mapping[str, Any]) -> Shape | None:
    """Return a model's shape: of its downloaded config.json, else of the config; None where neither has it."""
    downloaded = Path(places.manifest(name)).with_name("config.json")
    return shape_of_config(downloaded) if downloaded.is_file() else shape_of_settings(settings)


def _counted(table: Path) -> tuple[float, int]:
    """Return probes of a fact (mean) and number of facts of a data set's table."""
    lists = [pl.col(kind).list.len().mean() for kind in ("paraphrases", "neighborhood", "portability")]
    means = read_table(table, "a facts file").select(*lists, facts=pl.len()).row(0)
    return 1 + sum(means[:3]), int(means[3])
