"""Jobs on a chain of checkpoints: make a link, save a checkpoint as a full model."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.data.edit_order import chosen_facts
from collateral.data.facts import read_facts
from collateral.deltas.file_format import read_outline, write_increment
from collateral.deltas.replay import apply_chain
from collateral.deltas.update import restore, snapshot
from collateral.editing.method import Prepared
from collateral.editing.prepare.context_templates import read_templates
from collateral.editing.prepare.second_moments import read_layers
from collateral.editing.registry import is_flagged, load_method, load_regularizer
from collateral.editing.session import RAW, EditedLink, Editor, NumberedFact, run_link, write_records
from collateral.editing.state import read_state, recipe_sha256, write_state
from collateral.errors import CollateralError
from collateral.evaluation.efficacy import Reference, measure_facts, read_reference, write_rows
from collateral.io.atomic import sha256_file
from collateral.io.parquet import read_table
from collateral.models.language_model import load_model
from collateral.models.manifest import write_manifest


@dataclass(frozen=True)
class LinkInputs:
    """What one link of a chain reads.

    Attributes:
        model: the model's folder.
        facts: the data set.
        sequence: the order of the edits.
        known: what the unedited model knows; None edits every fact.
        contexts: context templates.
        moments: second moments of the method's layers; None where it needs none.
        hypernetwork: trained weights of an editor that learns to edit.
        reference: the unedited model's probes of this link's facts.
        like: the steps of the editor that a placebo imitates.
        deltas: the earlier increments that this one adds to, in order.
        state: the method's state after the last of them.
    """

    model: Path
    facts: Path
    sequence: Path
    known: Path | None
    contexts: Path
    moments: Path | None
    hypernetwork: Path | None
    reference: Sequence[Path]
    like: Sequence[Path]
    deltas: Sequence[Path] = ()
    state: Path | None = None


def parse_link_inputs(inputs: Mapping[str, Any]) -> LinkInputs:
    """Return the files among a job's inputs, by name; inputs that the job does not need are absent or empty."""

    def path_of(name: str) -> Path | None:
        return Path(str(inputs[name])) if inputs.get(name) else None

    def paths_of(name: str) -> list[Path]:
        return [Path(path) for path in inputs.get(name, [])]

    return LinkInputs(
        model=Path(inputs["model"]).parent,
        facts=Path(inputs["facts"]),
        sequence=Path(inputs["sequence"]),
        known=path_of("known"),
        contexts=Path(inputs["contexts"]),
        moments=path_of("moments"),
        hypernetwork=path_of("hypernetwork"),
        reference=paths_of("reference"),
        like=paths_of("like"),
        deltas=paths_of("deltas"),
        state=path_of("state"),
    )


def edit_link(
    files: LinkInputs,
    *,
    recipe: Mapping[str, Any],
    start: int,
    edits: int,
    seed: int,
    new_tokens: int,
    dtype: str,
    device: str,
    delta: Path,
    state: Path,
    records: Path,
    after_edit: Path,
) -> None:
    """Make the edits `start + 1` to `edits` and write delta, state, records and the probes right after each edit.

    Args:
        files: what is read.
        recipe: method, settings, regularizer, batch_size, unstable.
        start: number of edits of the previous checkpoint.
        edits: number of edits of this checkpoint.
        seed: of the study.
        new_tokens: length of the free generation.
        dtype: of the weights.
        device: where the edits run.
        delta: written: the increment.
        state: written: the method's state.
        records: written: one row per edit.
        after_edit: written: the probes of each fact right after its own edit.

    Raises:
        CollateralError: any input is damaged or does not belong to the others.
    """
    settings_sha256 = recipe_sha256(recipe)
    link, probes, about = _edited(files, recipe, start, edits, seed, new_tokens, dtype, device)
    write_rows(probes, after_edit)
    write_records(link.records, records)
    write_state(link.state, state, edits, settings_sha256)
    before, after, operations = link.before, link.after, link.operations
    del link
    gc.collect()  # the model, whose parts refer to each other: writing the increment has arrays of its own
    write_increment(delta, before, after, about, operations)


def _edited(
    files: LinkInputs,
    recipe: Mapping[str, Any],
    start: int,
    edits: int,
    seed: int,
    new_tokens: int,
    dtype: str,
    device: str,
) -> tuple[EditedLink, list[dict[str, Any]], dict[str, Any]]:
    """Return the edits that were made, the probes after each, and the metadata of the increment.

    The model ends with this function.
    """
    editor, chosen, reference = prepare_editor(files, recipe, start, edits)
    model = load_model(files.model, dtype, device)
    names = editor.method.parameters(model)
    original = snapshot(model, names) if editor.needs_original else {}
    state = read_state(files.state, start, recipe_sha256(recipe)) if files.state else {}
    apply_chain(model, files.deltas)
    restore(model, {name.removeprefix(RAW): state[name] for name in state if name.startswith(RAW)})
    probes: list[dict[str, Any]] = []

    def observe(group: Sequence[NumberedFact]) -> None:
        probes.extend(measure_facts(model, group, "after_edit", new_tokens, reference))

    prepared = read_prepared(files)
    link = run_link(model, editor, chosen, prepared, state, original=original, seed=seed, observe=observe)
    about = {
        "base": model.source,
        "base_sha256": model.base_sha256,
        "mode": "replacing" if editor.replaces else "additive",
        "from_edits": 0 if editor.replaces else start,
        "to_edits": edits,
        "editor": dict(recipe),
    }
    return link, probes, about


def prepare_editor(
    files: LinkInputs, recipe: Mapping[str, Any], start: int, edits: int
) -> tuple[Editor, list[NumberedFact], Reference]:
    """Return the editor, the facts number `start + 1` to `edits`, and the unedited model's probes of them."""
    facts = {fact.fact_id: fact for fact in read_facts(files.facts)}
    chosen = chosen_facts(facts, files.sequence, files.known, edits)[start:]
    editor = Editor(
        load_method(recipe["method"], recipe["settings"]),
        load_regularizer(recipe["regularizer"]),
        recipe["batch_size"],
        recipe["unstable"]["action"] == "skip",
        recipe["unstable"]["limit"],
    )
    return editor, chosen, read_reference(files.reference)


def read_prepared(files: LinkInputs) -> Prepared:
    """Return what was computed from the unedited model, and the step norms that a placebo takes."""
    norms: dict[str, float] = {}
    for path in files.like:
        table = read_table(path, "records of edits").select("fact_id", "update_norm")
        norms |= dict(table.fill_null(0.0).iter_rows())  # a skipped edit has none
    moments = dict.fromkeys(read_layers(files.moments), files.moments) if files.moments else {}
    return Prepared(
        templates=read_templates(files.contexts),
        moments=moments,
        step_norms=norms,
        hypernetwork=files.hypernetwork,
    )


def export_checkpoint(model_folder: Path, deltas: Sequence[Path], dtype: str, folder: Path) -> None:
    """Save the edited model as a plain folder of safetensors, config and tokenizer, with a manifest.

    Raises:
        CollateralError: a file is damaged, or the editor changes no weight, so that there is nothing to save.
    """
    method = read_outline(deltas[-1]).metadata["editor"].get("method")
    if method is not None and is_flagged(method, "adapter"):
        raise CollateralError(
            f"{deltas[-1].parent}: {method} changes no weight, so that there is no edited model to save; what it "
            "learnt is state.safetensors in that folder"
        )
    model = load_model(model_folder, dtype)
    apply_chain(model, deltas)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    source = {"base_sha256": model.base_sha256, "deltas": [sha256_file(path) for path in deltas]}
    write_manifest(folder, source)
