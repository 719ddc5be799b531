"""Shared fixtures; beartype checks every jaxtyping shape in the package."""

import gc
import importlib
import os

AHEAD = (
    "typechecker",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "lm_eval.evaluator",
    "lm_eval.tasks",
    "datasets",
    "polars",
    "pyarrow.parquet",
    "scipy.stats",
    "statsmodels.api",
    "altair",
    "vl_convert",
    "httpx2",
    "jsonschema",
    "snakemake.cli",
)
gc.disable()  # until all tests are collected: imports make no garbage

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Before the hook: what a module under it is the first to import is compiled from its source, in each process anew.
for name in AHEAD:
    importlib.import_module(name)

from jaxtyping import install_import_hook

install_import_hook("collateral", "typechecker.check")

import pytest
import torch

torch.set_num_threads(1)  # tiny matrices: a second thread only waits

from collateral.data.facts import Fact, Probe
from collateral.editing.method import Prepared
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.models.language_model import LanguageModel
from plainmass import second_moment
from tiny import FAMILIES, TEMPLATES, tiny_model


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep on one worker what shares a fixture: one of a file, the embedded model, the small study, Slurm."""
    for item in items:
        if item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.xdist_group("slurm"))
        elif {"finished", "copy"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("workflow"))
        elif "stages" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("kills"))
        elif not item.get_closest_marker("xdist_group") and shares(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def shares(item: pytest.Item) -> bool:
    """Return whether a test shares a fixture with others of its file, or the embedded model."""
    given = getattr(item, "_fixtureinfo", None)
    used = given.name2fixturedefs.values() if given else ()
    own = any(one.scope == "module" for defined in used for one in defined)
    return own or item.get_closest_marker("embedded") is not None


def pytest_collection_finish() -> None:
    """Let no later search for garbage go through what was imported and collected."""
    gc.freeze()
    gc.enable()


@pytest.fixture(params=FAMILIES)
def model(request) -> LanguageModel:
    """A fresh tiny model of each family."""
    return tiny_model(request.param)


@pytest.fixture
def llama() -> LanguageModel:
    return tiny_model("llama")


@pytest.fixture(scope="session")
def fact() -> Fact:
    return Fact(
        fact_id="capital-avalon",
        subject="Avalon",
        relation="capital",
        prompt="The capital of {} is",
        target_new="Benwick town",
        target_true="Camelot",
        paraphrases=("Avalon has its capital in",),
        neighborhood=(
            Probe("The capital of Logres is", "Caerleon"),
            Probe("The capital of Gaul is", "Lutetia"),
        ),
    )


@pytest.fixture
def facts(six_facts) -> list[Fact]:
    """Six small facts about different subjects."""
    return list(six_facts)


@pytest.fixture(scope="session")
def six_facts(fact) -> tuple[Fact, ...]:
    made = [fact]
    for number, (subject, place) in enumerate(
        [
            ("Merlin", "river"),
            ("Arthur", "sea"),
            ("Lancelot", "book"),
            ("Logres", "Avalon"),
            ("Gaul", "Camelot"),
        ]
    ):
        made.append(
            Fact(
                fact_id=f"home-{number}",
                subject=subject,
                relation="home",
                prompt="The home of {} is the",
                target_new=place,
                target_true="castle",
                paraphrases=(f"{subject} lives at the",),
                neighborhood=(Probe("The home of Vivian is the", "lake"),),
            )
        )
    return tuple(made)


@pytest.fixture
def templates() -> tuple[str, ...]:
    return TEMPLATES


@pytest.fixture
def prepared(tmp_path, templates) -> Prepared:
    """Contexts, and a random second moment of each layer of the tiny models."""
    write_moments({layer: Moment(second_moment(layer), 1000) for layer in range(4)}, tmp_path / "m", "tiny")
    return Prepared(templates, moments=dict.fromkeys(range(4), tmp_path / "m"))
