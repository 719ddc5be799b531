"""What editors do on the embedded model: single edits and sequences, with the settings of config/config.yaml."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from filelock import FileLock

from collateral.data.corpus import documents
from collateral.data.facts import Fact
from collateral.data.loaders import embedded
from collateral.deltas.update import restore, snapshot
from collateral.editing.method import EditingMethod, Prepared, attach
from collateral.editing.prepare.context_templates import sample_templates
from collateral.editing.prepare.second_moments import measure_moments, write_moments
from collateral.editing.registry import load_method, load_regularizer, moment_layers
from collateral.editing.session import Editor, NumberedFact, run_link
from collateral.evaluation.efficacy import known_facts, measure_fact
from collateral.models.download import fetch_model
from collateral.models.language_model import LanguageModel, load_model
from collateral.study.paths import name_layers

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m"
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
KINDS = ("reliability", "generalization", "locality")


def embedded_folder() -> Path:
    """Return the embedded model's folder, fetched once, also by two processes; `make run` finds it there too."""
    folder = ROOT / "resources/models" / MODEL
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        fetch_model(CONFIG["models"][MODEL]["source"], folder)  # what is there and whole is kept
    return folder


def embedded_model() -> LanguageModel:
    """Return the embedded model."""
    return load_model(embedded_folder())


def settings_of(method: str, **other: Any) -> dict[str, Any]:
    """Return a method's settings on the embedded model, some of them replaced."""
    return {**CONFIG["models"][MODEL]["methods"].get(method, {}), **other}


def known(model: LanguageModel, count: int, seed: int = 0) -> list[Fact]:
    """Return so many facts that the unedited model knows, of different subjects, in a seeded order."""
    facts = embedded.load(ROOT / "resources/embedded")
    random.Random(seed).shuffle(facts)
    sample = facts[: 2 * count + 20]
    right = set(known_facts(model, sample).filter("known")["fact_id"])
    chosen = {fact.subject: fact for fact in sample if fact.fact_id in right}
    return list(chosen.values())[:count]


def prepare(
    model: LanguageModel,
    folder: Path,
    layers: Sequence[int],
    lengths: Any = None,
    tokens: int | None = None,
) -> Prepared:
    """Return contexts, and second moments of some layers over so many tokens, which are written into a folder."""
    path = folder / f"moments-{name_layers(layers)}.safetensors"
    if layers and not path.exists():
        moments = measure_moments(model, layers, documents({"python_docs": True}), tokens)
        write_moments(moments, path, model.base_sha256)
    templates = sample_templates(model, lengths or CONFIG["contexts"]["lengths"], 0)
    return Prepared(templates, moments=dict.fromkeys(layers, path))


def layers_of(methods: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
    """Return the layers whose second moments some methods need."""
    return sorted({layer for method, settings in methods for layer in moment_layers(method, settings)})


Reference = dict[tuple[str, str, int], dict[str, Any]]


def reference_of(model: LanguageModel, facts: Sequence[Fact]) -> Reference:
    """Return the unedited model's probes."""
    rows = [row for fact in facts for row in measure_fact(model, 0, fact, "before", 4, None)]
    return {(row["fact_id"], row["kind"], row["probe"]): row for row in rows}


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return mean token accuracy (reliability, generalization) and mean agreement with the unedited model."""
    table = pl.DataFrame(list(rows), infer_schema_length=None)
    found = {}
    for kind in KINDS:
        column = "token_agreement" if kind == "locality" else "token_accuracy"
        found[kind] = float(table.filter(kind=kind)[column].mean() or 0.0)
    return found


def single_edits(
    model: LanguageModel,
    method: EditingMethod,
    facts: Sequence[Fact],
    prepared: Prepared,
    reference: Reference,
) -> dict[str, float]:
    """Return the mean scores right after each edit, made alone on the unedited model, and the mean ‖ΔW‖_F."""
    rows: list[dict[str, Any]] = []
    norms = []
    for number, fact in enumerate(facts):
        edit = method(model, [fact], replace(prepared, seed=number), {})
        saved = snapshot(model, tuple(edit.delta.updates))
        edit.delta.apply(model)
        with attach(method, model, edit.state):
            rows += measure_fact(model, number, fact, "now", 4, reference)
        restore(model, saved)
        norms.append(edit.delta.norm())
    return {**scores(rows), "norm": sum(norms) / len(norms)}


def sequence(
    model: LanguageModel,
    method: str,
    settings: dict[str, Any],
    facts: Sequence[Fact],
    prepared: Prepared,
    reference: Reference,
    batch_size: int = 1,
) -> dict[str, float]:
    """Return the scores of all facts after a whole sequence of edits; the model is put back."""
    editor = load_method(method, settings)
    original = snapshot(model, editor.parameters(model))
    numbered: list[NumberedFact] = list(enumerate(facts, start=1))
    recipe = Editor(editor, load_regularizer({}), batch_size, skip_unstable=True)
    try:
        link = run_link(
            model, recipe, numbered, prepared, {}, original=original, seed=0, observe=lambda _: None
        )
        with attach(editor, model, link.state):
            rows = [row for n, fact in numbered for row in measure_fact(model, n, fact, "now", 4, reference)]
    finally:
        restore(model, original)
    return scores(rows)
