"""What the class of a method or a regulariser declares, read from its source without importing it. Torch-free.

A misspelt setting is so an error while the workflow is planned, long before a GPU starts.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from collateral.editing.cost import Cost


@dataclass(frozen=True)
class Declaration:
    """What a class declares.

    Attributes:
        annotations: per setting, the annotation of its field, as written.
        defaults: the settings that have one.
        constants: the class attributes whose value is a literal.
        meanings: per setting, what the class's docstring says of it.
    """

    annotations: Mapping[str, str]
    defaults: Mapping[str, Any]
    constants: Mapping[str, Any]
    meanings: Mapping[str, str]

    @property
    def flags(self) -> frozenset[str]:
        """The class attributes that are true.

        Of a method: `batches` (an operation may edit several facts), `replaces` (an update holds the whole history,
        against W_0), `adapter` (no weight changes; the state is what was learnt), `moments` (second moments are
        always needed) and `hypernetwork` (a trained one is).
        """
        return frozenset(name for name, value in self.constants.items() if value is True)

    @property
    def cost(self) -> Cost:
        """What an operation of a method takes: the class attribute `cost`."""
        return cast("Cost", self.constants.get("cost", {}))

    @property
    def required(self) -> list[str]:
        """The settings without a default."""
        return [name for name in self.annotations if name not in self.defaults]


@cache
def read_declaration(path: Path, variable: str) -> Declaration:
    """Return what the class declares that a file assigns to a variable.

    Args:
        path: the file.
        variable: name of the module's variable.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owner = next(
        node.value.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == variable
    )
    declared = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    annotations: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for node in declared.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, annotation = node.target.id, ast.unparse(node.annotation)
        values = {} if node.value is None else {name: ast.literal_eval(node.value)}
        if annotation.startswith("ClassVar"):
            constants |= values
        else:
            annotations[name] = annotation
            defaults |= values
    return Declaration(annotations, defaults, constants, _meanings(ast.get_docstring(declared) or ""))


def _meanings(docstring: str) -> dict[str, str]:
    """Return attribute → text of a docstring's section "Attributes"."""
    section = docstring.partition("Attributes:\n")[2].split("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
