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
from typing import Any

from collateral.errors import CollateralError, unknown_name

FOLDER = Path(__file__).parent / "methods"
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}


@dataclass(frozen=True)
class Declaration:
    """What a method's file declares.

    Attributes:
        fields: per setting, its annotation and whether it must be given.
        batches: whether one operation may edit several facts.
    """

    fields: Mapping[str, tuple[str, bool]]
    batches: bool


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
    batches = False
    for node in owner.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if node.target.id == "batches":
            batches = isinstance(node.value, ast.Constant) and node.value.value is True
        else:
            fields[node.target.id] = (ast.unparse(node.annotation), node.value is None)
    return Declaration(fields, batches)


def checked_settings(method: str, settings: Mapping[str, Any], where: str) -> None:
    """Check names and types of a method's settings.

    Raises:
        CollateralError: unknown, missing or of the wrong type; the message names the editor and the model.
    """
    fields = declaration(method).fields
    for name, value in settings.items():
        if name not in fields:
            raise CollateralError(f"config: {where}: {unknown_name(f'setting of {method}:', name, fields)}")
        wanted = _KINDS.get(fields[name][0])
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            raise CollateralError(
                f"config: {where}: setting '{name}' is {value!r}; {method} wants {fields[name][0]} (write 0.0005, "
                "not 5e-4, which YAML reads as text)"
            )
    for name, (_, required) in fields.items():
        if required and name not in settings:
            raise CollateralError(
                f"config: {where}: the setting '{name}' of {method} is missing; give it in models.*.methods.{method} "
                "or in the editor's settings"
            )


def method_batches(method: str) -> bool:
    """Return whether one operation of the method may edit several facts."""
    return declaration(method).batches


def moment_layers(method: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the layers whose second moments the method needs with these settings."""
    # ROME asks for them by mom2_adjustment
    if not settings.get("mom2_adjustment", False):
        return []
    return [int(settings["layer"])]


def load_method(method: str, settings: Mapping[str, Any]) -> Any:
    """Return the method with its settings: the one place where a module is imported by name.

    Raises:
        CollateralError: no such method, or a setting out of range.
    """
    declaration(method)
    return importlib.import_module(f"collateral.methods.{method}").METHOD(**settings)
