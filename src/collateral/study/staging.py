"""The files of a study that need a network, so that they can be downloaded ahead. Torch-free.

Afterwards the compute nodes read nothing else from outside; `pipeline.check_staged` shows that these files suffice.
"""

from collections.abc import Iterable
from typing import Any

from collateral.study import paths
from collateral.study.design import Study

RULES = (
    "download_model",
    "download",
    "download_text",
    "load_facts",
    "load_training_facts",
    "prepare_benchmark",
)
"""The rules that make these files; only those named download… use the network."""

_CHARACTERS = 8  # of text for each token that is requested: English has 4 to 5
_TOKENS = 1_000_000  # at least; ten for each dimension of a 405B model's keys are 530,000


def find_hub_text(study: Study) -> dict[str, Any] | None:
    """Return the source of the hub's text that keys and activations are taken from, and how much; None if none is."""
    text = study.settings["moments"]["text"]
    if "hub" not in text:
        return None
    tokens = max(study.settings["moments"]["tokens"] or 0, study.settings["drift"]["tokens"], _TOKENS)
    return {**text, "characters": _CHARACTERS * tokens}


def list_training_datasets(study: Study) -> list[str]:
    """Return the data sets with training facts of their own that one of the study's editors learns from."""
    learning = (cell for cell in study.cells if study.learner(cell.model, cell.editor))
    return sorted(
        {cell.dataset for cell in learning if "training" in study.settings["datasets"][cell.dataset]}
    )


def list_staged_files(study: Study, splits: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return kind → files: models, facts, benchmarks, texts.

    Args:
        study: checked.
        splits: (benchmark, split) that the study's tasks read.
    """
    text = find_hub_text(study)
    return {
        "models": [paths.manifest(model) for model in study.names("models")],
        "facts": [paths.facts(dataset) for dataset in study.names("datasets")]
        + [paths.training_facts(dataset) for dataset in list_training_datasets(study)],
        "benchmarks": [paths.benchmark(*split) for split in dict.fromkeys(splits)],
        "texts": [paths.text(text)] if text else [],
    }
