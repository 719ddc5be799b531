"""Methods and regularisers by name: what settings each declares, without importing torch, and how it is loaded.

A method is a file in `methods/` that defines one frozen dataclass and names it METHOD; a regulariser is one in
`regularizers/` that names its class REGULARIZER. Nothing else lists their names.
"""

import importlib
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from collateral.editing.declaration import Declaration, read_declaration
from collateral.editing.ranges import find_fault
from collateral.errors import CollateralError, unknown_name

METHODS = Path(__file__).parent / "methods"
REGULARIZERS = Path(__file__).parent / "regularizers"


def method_names() -> list[str]:
    """Return the names of all editing methods."""
    return _names(METHODS)


def regularizer_names() -> list[str]:
    """Return the names of all regularisers."""
    return _names(REGULARIZERS)


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


def declaration(method: str) -> Declaration:
    """Return what a method declares.

    Raises:
        CollateralError: no such method; the message has the nearest.
    """
    if method not in method_names():
        raise unknown_name("method", method, method_names())
    return read_declaration(METHODS / f"{method}.py", "METHOD")


def regularizer_declaration(name: str) -> Declaration:
    """Return what a regulariser declares.

    Raises:
        CollateralError: no such regulariser; the message has the nearest.
    """
    if name not in regularizer_names():
        raise unknown_name("regularizer", name, regularizer_names())
    return read_declaration(REGULARIZERS / f"{name}.py", "REGULARIZER")


def check_settings(method: str, settings: Mapping[str, Any], where: str) -> None:
    """Check names, types and ranges of a method's settings.

    Raises:
        CollateralError: unknown, missing, of the wrong type or out of range; the message names the editor and the
            model.
    """
    declared = declaration(method)
    for name, value in settings.items():
        if name not in declared.annotations:
            unknown = unknown_name(f"setting of {method}:", name, declared.annotations)
            raise CollateralError(f"config: {where}: {unknown}")
        fault = find_fault(declared.annotations[name], value)
        if fault is not None:
            raise CollateralError(f"config: {where}: {method}: {name} is {value!r}; it {fault}")
    for name in declared.required:
        if name not in settings:
            raise CollateralError(
                f"config: {where}: the setting '{name}' of {method} is missing; give it in models.*.methods.{method} "
                "or in the editor's settings"
            )


def complete_regularizer(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a regulariser's settings in a config, checked, with its defaults: as a recipe records them.

    A recipe records these five settings whichever its regulariser: it is hashed, and stands in every delta and
    state. Settings that a later regulariser declares are recorded for that regulariser alone.

    Args:
        settings: `name`, and settings of the regulariser of that name.
        key: in the config, for messages.

    Raises:
        CollateralError: an unknown regulariser or setting, or a value of the wrong type or out of range.
    """
    always = {
        "keep": 100,
        "log_base": math.e,
        "reference": "current",
        "variant": "svd",
        "within_layers": False,
    }
    name = settings.get("name", "none")
    if name not in regularizer_names():
        raise CollateralError(
            f"config: {unknown_name(f'value of {key}.name:', str(name), regularizer_names())}"
        )
    declared = regularizer_declaration(name)
    for setting, value in settings.items():
        if setting == "name":
            continue
        if setting not in declared.annotations:
            kind = f"key of {key}, whose regulariser is {name}:"
            raise CollateralError(
                f"config: {unknown_name(kind, str(setting), ['name', *declared.annotations])}"
            )
        fault = find_fault(declared.annotations[setting], value)
        if fault is not None:
            raise CollateralError(
                f"config: {key}.{setting} is {value!r}; it {fault}: {declared.meanings[setting]}"
            )
    return {**always, **declared.defaults, **settings, "name": name}


def is_flagged(method: str, flag: str) -> bool:
    """Return whether a method's class declares a flag, see `Declaration.flags`."""
    return flag in declaration(method).flags


def regularizer_kind(name: str) -> str:
    """Return the kind that a regulariser's class declares, see `Regularizer.kind`."""
    return str(regularizer_declaration(name).constants["kind"])


def edited_layers(method: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the layers that a method's settings name: `layers`, or `layer`, or none."""
    complete = {**declaration(method).defaults, **settings}
    if "layers" in complete:
        return [int(layer) for layer in complete["layers"]]
    return [int(complete["layer"])] if "layer" in complete else []


def moment_layers(method: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the layers whose second moments the method needs with these settings, in order."""
    complete = {**declaration(method).defaults, **settings}
    if not (is_flagged(method, "moments") or complete.get("mom2_adjustment")):
        return []
    return sorted(set(edited_layers(method, settings)))


def load_method(method: str, settings: Mapping[str, Any]) -> Any:
    """Return the method with its settings, which were checked with the config: its module is imported by name.

    Raises:
        CollateralError: no such method.
    """
    if method not in method_names():
        raise unknown_name("method", method, method_names())
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return importlib.import_module(f"collateral.editing.methods.{method}").METHOD(**values)


def load_regularizer(settings: Mapping[str, Any]) -> Any:
    """Return the regulariser of a recipe, which may record settings of others too; it is imported by name.

    Raises:
        CollateralError: no such regulariser.
    """
    name = settings.get("name", "none")
    if name not in regularizer_names():
        raise unknown_name("regularizer", name, regularizer_names())
    kind = importlib.import_module(f"collateral.editing.regularizers.{name}").REGULARIZER
    return kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})
