"""A study's config: filled with defaults, checked against the schema and against itself. Torch-free."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import jsonschema
import yaml

from collateral.data.registry import loader_names
from collateral.editing.ranges import describe_annotation
from collateral.editing.registry import (
    check_settings,
    complete_regularizer,
    edited_layers,
    is_flagged,
    regularizer_declaration,
    regularizer_kind,
    regularizer_names,
)
from collateral.errors import CollateralError, unknown_name
from collateral.io.yaml import read_yaml
from collateral.study.design import Cell, Settings, Study

# JSON Schema's integers include 4.0, which cannot be a count or part of a file name here
_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)

_RENAMED = {"cards": "gpus"}  # old name of a key → its name


def load_study(config: Mapping[str, Any], schema_path: Path) -> Study:
    """Return the checked study of a config.

    Raises:
        CollateralError: one line that names the key, its value and what is allowed.
    """
    schema = read_yaml(Path(schema_path), "a schema")
    settings: Settings = copy.deepcopy(dict(config))
    validator = _Validator(schema)
    errors = sorted(
        validator.iter_errors(settings), key=lambda error: (len(error.absolute_path), str(error.path))
    )
    if errors:
        raise _describe_schema_error(errors[0])
    _fill_defaults(settings, schema)
    for name, editor in settings["editors"].items():
        editor["regularizer"] = complete_regularizer(editor["regularizer"], f"editors.{name}.regularizer")
    settings = _sort_keys(settings)  # Snakemake compares the text of a job's parameters
    study = Study(settings)
    _check_names(study)
    _check_gpus(study)
    _check_editors(study)
    return study


def _describe_schema_error(error: Any) -> CollateralError:
    where = ".".join(map(str, error.absolute_path)) or "the top level"
    if error.validator == "additionalProperties":
        valid = error.schema["properties"]
        extra = next(key for key in error.instance if key not in valid)
        if extra in _RENAMED and _RENAMED[extra] in valid:
            return CollateralError(
                f"config: {where}.{extra} is an old name of the key {where}.{_RENAMED[extra]}; rename it"
            )
        return CollateralError(f"config: {unknown_name(f'key of {where}:', str(extra), valid)}")
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return CollateralError(f"config: {where} lacks the key '{missing}'; add it")
    if error.validator == "oneOf":
        ways = " or ".join(" + ".join(way["required"]) for way in error.validator_value)
        return CollateralError(
            f"config: {where} has {', '.join(error.instance)}; it must have exactly one of: {ways}"
        )
    if error.validator == "enum":
        return CollateralError(
            f"config: {unknown_name(f'value of {where}:', str(error.instance), error.validator_value)}"
        )
    meaning = error.schema.get("description", "")
    value, reason = (shorten(text, 200, placeholder=" …") for text in (repr(error.instance), error.message))
    return CollateralError(f"config: {where} is {value}: {reason}; see config/README.md: {meaning or where}")


def _sort_keys(value: Any) -> Any:
    """Return a value with sorted keys at every level, since the order of a config's keys must change nothing."""
    if isinstance(value, dict):
        return {key: _sort_keys(value[key]) for key in sorted(value, key=str)}
    return [_sort_keys(entry) for entry in value] if isinstance(value, list) else value


def _fill_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    """Put the schema's defaults where a key is absent, at every level."""
    if not isinstance(value, dict):
        return
    for key, entry_schema in schema.get("properties", {}).items():
        if key not in value and "default" in entry_schema:
            value[key] = copy.deepcopy(entry_schema["default"])
        if key in value:
            _fill_defaults(value[key], entry_schema)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for entry in value.values():
            _fill_defaults(entry, extra)


def _check_names(study: Study) -> None:
    for name, dataset in study.settings["datasets"].items():
        if dataset["loader"] not in loader_names():
            raise unknown_name(f"loader in datasets.{name}.loader:", dataset["loader"], loader_names())
    for part in study.parts.values():
        for kind in ("models", "datasets", "editors", "suites"):
            for name in part[kind]:
                if name not in study.settings[kind]:
                    raise unknown_name(f"name in study.{kind}:", name, study.settings[kind])
        _check_increase("study.checkpoints", part["checkpoints"])
    for editor in study.names("editors"):
        points = study.settings["editors"][editor]["checkpoints"]
        if isinstance(points, list):
            _check_increase(f"editors.{editor}.checkpoints", points)


def _check_increase(key: str, values: Sequence[int]) -> None:
    for earlier, later in itertools.pairwise(values):
        if later <= earlier:
            raise CollateralError(
                f"config: {key} is {list(values)}: {later} follows {earlier}; checkpoints must increase"
            )


def _check_gpus(study: Study) -> None:
    for model in study.names("models"):
        settings = study.settings["models"][model]
        gpus, device = settings["gpus"], settings["device"]
        if (gpus > 1) != (device == "cuda:all"):
            raise CollateralError(
                f"config: models.{model}: gpus is {gpus} and device '{device}'; the device 'cuda:all' needs gpus of "
                "at least 2, every other device gpus of 1; change one of the two keys"
            )


def _check_editors(study: Study) -> None:
    for editor in study.names("editors"):
        _check_recipe(study, editor)
    for model, editor in dict.fromkeys((cell.model, cell.editor) for cell in study.cells):
        recipe = study.recipe(model, editor)
        check_settings(recipe["method"], recipe["settings"], f"editor '{editor}' on model '{model}'")
        _check_layers(study, model, editor, recipe)
    for cell in study.cells:
        _check_batches(study, cell)
        _check_placebo(study, cell)
        _check_training(study, cell)


def _check_recipe(study: Study, editor: str) -> None:
    settings = study.settings["editors"][editor]
    regularizer = regularizer_kind(settings["regularizer"]["name"])
    if settings["batch_size"] > 1 and not is_flagged(settings["method"], "batches"):
        raise CollateralError(
            f"config: editors.{editor}.batch_size is {settings['batch_size']}, but {settings['method']} edits one "
            "fact at a time; set it to 1"
        )
    if is_flagged(settings["method"], "adapter") and regularizer != "identity":
        raise CollateralError(
            f"config: editors.{editor}.regularizer is '{settings['regularizer']['name']}', but {settings['method']} "
            "changes no weight that it could restrain; leave it out"
        )
    if settings["editing"] == "single" and regularizer == "accumulated":
        raise CollateralError(
            f"config: editors.{editor}: {settings['regularizer']['name']} restrains an accumulated update, and with "
            "editing 'single' none accumulates; set editing to 'sequential'"
        )


def _check_batches(study: Study, cell: Cell) -> None:
    size = study.settings["editors"][cell.editor]["batch_size"]
    uneven = [edits for edits in study.checkpoints(cell) if edits % size]
    if uneven:
        raise CollateralError(
            f"config: editors.{cell.editor}: the checkpoint {uneven[0]} is not a multiple of batch_size {size}; give "
            "this editor checkpoints that are multiples"
        )


def _check_layers(study: Study, model: str, editor: str, recipe: Settings) -> None:
    known: int | None = study.settings["models"][model]["layers"]
    for layer in edited_layers(recipe["method"], recipe["settings"]):
        if known is not None and layer >= known:
            raise CollateralError(
                f"config: editor '{editor}' on model '{model}': layer {layer} is outside the model, which has layers "
                f"0 to {known - 1}; name one of them"
            )


def _check_placebo(study: Study, cell: Cell) -> None:
    model, _, _, editor = cell
    like = study.likeness(model, editor)
    if like is None:
        return
    if like not in study.settings["editors"]:
        raise unknown_name(f"editor in editors.{editor}.settings.like:", like, study.settings["editors"])
    if study.likeness(model, like) is not None:
        raise CollateralError(
            f"config: editors.{editor}.settings.like names '{like}', itself a placebo; name another editor"
        )
    if study.is_single(like) != study.is_single(editor):
        raise CollateralError(
            f"config: editors.{editor} is a placebo like '{like}', but only one of them edits singly; give both the "
            "same `editing`"
        )
    imitated = study.grid.get(cell._replace(editor=like))
    if imitated is None:
        raise CollateralError(
            f"config: editors.{editor} is a placebo like '{like}', which the study does not run beside it; name "
            f"'{like}' among the editors too"
        )
    if not set(study.checkpoints(cell)) <= set(imitated):
        raise CollateralError(
            f"config: editors.{editor} is a placebo like '{like}' but has checkpoints that '{like}' lacks; leave "
            "them out"
        )


def _check_training(study: Study, cell: Cell) -> None:
    dataset = study.settings["datasets"][cell.dataset]
    if not study.is_flagged(cell.editor, "hypernetwork") or "training" in dataset:
        return
    facts = study.recipe(cell.model, cell.editor)["settings"]["training_facts"]
    last, limit = max(study.checkpoints(cell)), dataset["limit"]
    if limit is not None and facts + last > limit:
        raise CollateralError(
            f"config: editors.{cell.editor}: training_facts is {facts} and the last checkpoint {last}, but "
            f"datasets.{cell.dataset}.limit is {limit}, and a fact that was trained on is not edited; lower "
            f"training_facts to {max(limit - last, 0)}, or raise the limit"
        )


def list_keys(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (dotted key, schema) of every leaf key; names that a user gives stand as `*`."""
    yield from _list_keys(schema, path, schema.get("$defs", {}))


def _list_keys(
    schema: Mapping[str, Any], path: str, definitions: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, written in schema.get("properties", {}).items():
        leaf = {**definitions.get(str(written.get("$ref", "")).rpartition("/")[2], {}), **written}
        below = f"{path}.{key}" if path else key
        children = list(_list_keys(leaf, below, definitions))
        yield from children or [(below, leaf)]
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and "properties" in extra:
        yield from _list_keys(extra, f"{path}.*", definitions)


def format_key_table(schema: Mapping[str, Any]) -> str:
    """Return the Markdown table of all keys: type, default, meaning."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, leaf in list_keys(schema):
        kind = leaf.get("type", " / ".join(map(str, leaf.get("enum", ["text"]))))
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        default = f"`{_yaml_inline(leaf['default'])}`" if "default" in leaf else "–"
        meaning = leaf.get("description", "").replace("|", r"\|")
        lines.append(f"| `{key}` | {kind} | {default} | {meaning} |")
        if key == "editors.*.regularizer.name":
            lines += _regularizer_rows(key.removesuffix(".name"))
    return "\n".join(lines) + "\n"


def _regularizer_rows(key: str) -> list[str]:
    """Return the rows of the settings that the regularisers' classes declare."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in regularizer_names():
        declared = regularizer_declaration(name)
        for setting, annotation in declared.annotations.items():
            default = f"`{_yaml_inline(declared.defaults[setting])}`" if setting in declared.defaults else "–"
            meaning = declared.meanings[setting].replace("|", r"\|")
            rows.setdefault((setting, describe_annotation(annotation), default, meaning), []).append(name)
    return [
        f"| `{key}.{setting}` | {kind} | {default} | {', '.join(names)}: {meaning} |"
        for (setting, kind, default, meaning), names in rows.items()
    ]


def _yaml_inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()
