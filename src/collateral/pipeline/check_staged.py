"""Whether what was staged suffices: models, tokenizers and tasks are loaded as the jobs will load them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.study import paths as places
from collateral.study.design import Study
from collateral.tasks.benchmarks.prepared_data import Prepared
from collateral.tasks.registry import benchmarks_of, load_tasks

log = logging.getLogger(__name__)


class HubTasksError(CollateralError):
    """Tasks read data sets that are not in the catalogue, and the hub's cache does not have them."""


def check_models(study: Study) -> None:
    """Check every file of every model against its manifest, and load config and tokenizer.

    Raises:
        CollateralError: a file is missing or damaged, or cannot be loaded.
    """
    from transformers import AutoConfig, AutoTokenizer

    from collateral.models.manifest import verified_manifest

    for name in study.names("models"):
        folder = Path(places.manifest(name)).parent
        verified_manifest(folder)
        for kind in (AutoConfig, AutoTokenizer):
            try:
                kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise CollateralError(
                    f"{folder}: {kind.__name__} cannot load it ({_first_line(error)}); check that the "
                    f"source of models.{name} is whole"
                ) from None


def check_tasks(study: Study, folders: Mapping[str, Sequence[Path]]) -> None:
    """Load all tasks of the study's suites with their data.

    With a network this brings what tasks outside the catalogue read into the user's hub cache; without one it shows
    that everything is there.

    Args:
        study: checked.
        folders: suite → folders with task files.

    Raises:
        HubTasksError: a data set cannot be loaded.
    """
    for name in study.names("suites"):
        own: dict[str, Any] = study.settings["suites"][name]
        needed = benchmarks_of(own["tasks"], folders[name], own["num_fewshot"])
        data: Prepared = {
            (benchmark, split): Path(places.benchmark(benchmark, split))
            for benchmark, splits in needed.items()
            for split in splits
        }
        log.info("loading the tasks of the suite %s", name)
        try:
            load_tasks(own["tasks"], list(folders[name]), data, own["num_fewshot"])
        except CollateralError:
            raise
        except (OSError, ValueError, ImportError) as error:
            raise HubTasksError(
                f"suites.{name}: its tasks cannot be loaded ({_first_line(error)}); a task on a data set that is not "
                "in docs/data.md reads it from the user's hub cache: HF_HOME must be where compute nodes see it"
            ) from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
