"""The editing methods by name: what settings each declares, without importing torch, and how it is loaded.

A method is a file in `methods/` that defines one frozen dataclass and names it METHOD. Its fields are read from
the source, so that a misspelt setting is an error while the workflow is planned, long before a GPU starts.
"""

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from collateral.editing.cost import Cost
from collateral.editing.hyperparameter_ranges import check_ranges
from collateral.errors import CollateralError, unknown_name

FOLDER = Path(__file__).parent / "methods"
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


@dataclass(frozen=True)
class Declaration:
    """What a method's file declares.

    Attributes:
        fields: per setting, its annotation and whether it must be given.
        defaults: the settings that have one.
        flags: class attributes that are true: `batches` (an operation may edit several facts), `replaces` (an
            update holds the whole history, against W_0), `adapter` (no weight changes; the state is what was
            learnt), `moments` (second moments are always needed), `hypernetwork` (a trained one is).
        cost: what an operation takes: the class attribute `cost`.
    """

    fields: Mapping[str, tuple[str, bool]]
    defaults: Mapping[str, Any]
    flags: frozenset[str]
    cost: Cost


def method_names() -> list[str]:
    """Return the names of all editing methods."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


@cache
def declaration(method: str) -> Declaration:
    """Return what a method declares.

    Raises:
        CollateralError: no such method; the message has the nearest.
    """
    if method not in method_names():
        raise unknown_name("method", method, method_names())
    tree = ast.parse((FOLDER / f"{method}.py").read_text(encoding="utf-8"))
    name = next(
        node.value.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "METHOD"
    )
    owner = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields: dict[str, tuple[str, bool]] = {}
    defaults: dict[str, Any] = {}
    flags: set[str] = set()
    cost: Cost = {}
    for node in owner.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, kind = node.target.id, ast.unparse(node.annotation)
        if kind.startswith("ClassVar"):
            flags |= {name} if isinstance(node.value, ast.Constant) and node.value.value is True else set()
            if name == "cost" and node.value is not None:
                cost = cast("Cost", ast.literal_eval(node.value))
            continue
        fields[name] = (kind, node.value is None)
        if node.value is not None:
            defaults[name] = ast.literal_eval(node.value)
    return Declaration(fields, defaults, frozenset(flags), cost)


def checked_settings(method: str, settings: Mapping[str, Any], where: str) -> None:
    """Check names and types of a method's settings.

    Raises:
        CollateralError: unknown, missing or of the wrong type; the message names the editor and the model.
    """
    fields = declaration(method).fields
    for name, value in settings.items():
        if name not in fields:
            raise CollateralError(f"config: {where}: {unknown_name(f'setting of {method}:', name, fields)}")
        if not _fits(value, fields[name][0]):
            raise CollateralError(
                f"config: {where}: setting '{name}' is {value!r}; {method} wants {fields[name][0]} (write 0.0005, "
                "not 5e-4, which YAML reads as text)"
            )
    try:
        check_ranges(method, settings)
    except CollateralError as error:
        raise CollateralError(f"config: {where}: {error}") from None
    for name, (_, required) in fields.items():
        if required and name not in settings:
            raise CollateralError(
                f"config: {where}: the setting '{name}' of {method} is missing; give it in models.*.methods.{method} "
                "or in the editor's settings"
            )


def _fits(value: Any, annotation: str) -> bool:
    """Return whether a config's value is of a declared type: int, float, bool, str, a choice, a list of numbers."""
    if annotation.startswith("Literal["):
        return value in ast.literal_eval(annotation.removeprefix("Literal"))
    if annotation.startswith("tuple["):
        kind = annotation.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, list) and all(_fits(one, kind) for one in value)
    for kind in annotation.split(" | "):
        wanted = _KINDS[kind]
        if isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool)):
            return True
    return False


def is_flagged(method: str, flag: str) -> bool:
    """Return whether a method's class declares a flag, see `Declaration.flags`."""
    return flag in declaration(method).flags


def edited_layers(method: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the layers that a method's settings name: `layers`, or `layer`, or none."""
    every = {**declaration(method).defaults, **settings}
    if "layers" in every:
        return [int(layer) for layer in every["layers"]]
    return [int(every["layer"])] if "layer" in every else []


def moment_layers(method: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the layers whose second moments the method needs with these settings, in order."""
    every = {**declaration(method).defaults, **settings}
    if not (is_flagged(method, "moments") or every.get("mom2_adjustment")):
        return []
    return sorted(set(edited_layers(method, settings)))


def load_method(method: str, settings: Mapping[str, Any]) -> Any:
    """Return the method with its settings: the one place where a module is imported by name.

    Raises:
        CollateralError: no such method, or a setting out of range.
    """
    declaration(method)
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return importlib.import_module(f"collateral.editing.methods.{method}").METHOD(**frozen)
