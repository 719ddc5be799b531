"""The default study with other sections, what is known of its sizes, and jobs of it that were recorded."""

import copy
import functools
from pathlib import Path

import yaml

from collateral.study.config import load_study
from collateral.study.cost.model_shape import read_shape
from collateral.study.cost.study_sizes import Sizes
from collateral.study.jobs import Job
from collateral.tasks.token_counts import suite_counts

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
MODEL = "smollm2-135m"


@functools.cache
def _default_config():
    return yaml.safe_load((ROOT / "config/config.yaml").read_text())


def study_of(**own):
    """The default study with keys of `study` and sections replaced."""
    config = copy.deepcopy(_default_config())
    sections = own.pop("sections", {})
    config["study"] = {**config["study"], **own}
    for name, entries in sections.items():
        for key, value in entries.items():
            config[name][key] = {**config[name].get(key, {}), **value}
    return load_study(config, SCHEMA)


def sizes_of(study):
    return Sizes(
        shapes={
            name: read_shape(Path("absent/manifest"), own) for name, own in study.settings["models"].items()
        },
        suites={name: suite_counts(study.settings["suites"][name], []) for name in study.names("suites")},
        probes=dict.fromkeys(study.settings["datasets"], 4.0),
        facts={},
    )


# Recorded by Snakemake: SmolLM2-135M, one thread of a busy machine; seconds, resident MB.
RECORDED = [
    (Job("evaluate_unedited", "", MODEL, suite="abilities"), 69.9, 1205),
    (Job("edit", "", MODEL, "counterfact", 0, "rome", 0, 2), 37.1, 1117),
    (Job("edit", "", MODEL, "counterfact", 0, "rome-rect-40", 0, 2), 31.2, 1130),
    (Job("edit", "", MODEL, "counterfact", 0, "memit", 0, 2), 41.7, 1108),
    (Job("edit", "", MODEL, "counterfact", 0, "d4s", 0, 2), 54.9, 1427),
    (Job("edit", "", MODEL, "counterfact", 0, "ft", 0, 2), 30.1, 1123),
    (Job("edit", "", MODEL, "counterfact", 0, "kn", 0, 2), 32.0, 1082),
    (Job("edit", "", MODEL, "zsre", 1, "d4s", 0, 20), 347.2, 1813),
    (Job("edit_singly", "", MODEL, "zsre", 0, "rome", 15, 30), 212.5, 1220),
    (Job("measure_drift", "", MODEL, "counterfact", 0, "rome", 0, 2), 33.3, 1492),
    (Job("measure_drift", "", MODEL, "counterfact", 0, "memit", 0, 2), 31.7, 1752),
    (Job("weigh", "", MODEL, "counterfact", 0, "memit", 0, 2), 7.6, 707),
    (Job("measure_moments", "", MODEL, layers=(4,)), 38.5, 857),
    (Job("measure_moments", "", MODEL, layers=(8,)), 51.2, 910),
]
