"""What values a setting may take, written beside its field: `v_lr: Annotated[float, Above(0)] = 0.5`. Torch-free.

The annotations are read from the source, so that a config is checked without importing a method; no code that edits
reads them. The text of a range completes the sentence "it must be …".
"""

import ast
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "None": ((type(None),), "null"),
}


@dataclass(frozen=True)
class Above:
    """Numbers above a bound."""

    bound: float

    def allows(self, value: Any) -> bool:
        """Return whether a number is larger."""
        return bool(value > self.bound)

    def __str__(self) -> str:
        return f"above {self.bound:g}"


@dataclass(frozen=True)
class AtLeast:
    """Numbers from a bound upwards."""

    bound: float

    def allows(self, value: Any) -> bool:
        """Return whether a number is as large or larger."""
        return bool(value >= self.bound)

    def __str__(self) -> str:
        return f"at least {self.bound:g}"


@dataclass(frozen=True)
class Below:
    """Numbers below a bound."""

    bound: float

    def allows(self, value: Any) -> bool:
        """Return whether a number is smaller."""
        return bool(value < self.bound)

    def __str__(self) -> str:
        return f"below {self.bound:g}"


@dataclass(frozen=True)
class AtMost:
    """Numbers up to a bound."""

    bound: float

    def allows(self, value: Any) -> bool:
        """Return whether a number is as small or smaller."""
        return bool(value <= self.bound)

    def __str__(self) -> str:
        return f"at most {self.bound:g}"


@dataclass(frozen=True)
class Increasing:
    """Lists of layer numbers, at least one, that increase."""

    def allows(self, value: Any) -> bool:
        """Return whether a list of integers is one of layers in order."""
        return bool(value) and value[0] >= 0 and all(later > earlier for earlier, later in pairwise(value))

    def __str__(self) -> str:
        return "a list of layer numbers that increase, e.g. [4, 5, 6]"


Range = Above | AtLeast | Below | AtMost | Increasing
_RANGES = {kind.__name__: kind for kind in (Above, AtLeast, Below, AtMost, Increasing)}


def split_annotation(annotation: str) -> tuple[str, tuple[Range, ...]]:
    """Return the type that a field's annotation states, as text, and its ranges.

    Raises:
        KeyError: a range that this module does not define.
    """
    tree = ast.parse(annotation, mode="eval").body
    if not (isinstance(tree, ast.Subscript) and ast.unparse(tree.value) == "Annotated"):
        return annotation, ()
    assert isinstance(tree.slice, ast.Tuple)
    kind, *calls = tree.slice.elts
    ranges: list[Range] = []
    for call in calls:
        assert isinstance(call, ast.Call)
        arguments = [ast.literal_eval(argument) for argument in call.args]
        ranges.append(_RANGES[ast.unparse(call.func)](*arguments))
    return ast.unparse(kind), tuple(ranges)


def find_fault(annotation: str, value: Any) -> str | None:
    """Return what a field's value must be, in words, where a config's value is not: `must be above 0`."""
    kind, ranges = split_annotation(annotation)
    if not _has_type(value, kind):
        hint = " (write 0.0005, not 5e-4, which YAML reads as text)" if isinstance(value, str) else ""
        return f"must be {describe_type(kind)}{hint if 'float' in kind else ''}"
    if value is None or all(each.allows(value) for each in ranges):
        return None
    return f"must be {' and '.join(map(str, ranges))}"


def describe_annotation(annotation: str) -> str:
    """Return type and ranges of a field in words: `a number, above 0 and at most 100`."""
    kind, ranges = split_annotation(annotation)
    return ", ".join([describe_type(kind), *([" and ".join(map(str, ranges))] if ranges else [])])


def describe_type(kind: str) -> str:
    """Return a type in words: `a number or null`."""
    if kind.startswith("Literal["):
        return f"one of: {', '.join(ast.literal_eval(kind.removeprefix('Literal')))}"
    if kind.startswith("tuple["):
        return f"a list, each entry {describe_type(_element(kind))}"
    return " or ".join(_TYPES[name][1] for name in kind.split(" | "))


def _has_type(value: Any, kind: str) -> bool:
    """Return whether a config's value is of a declared type: int, float, bool, str, a choice, a list of numbers."""
    if kind.startswith("Literal["):
        return value in ast.literal_eval(kind.removeprefix("Literal"))
    if kind.startswith("tuple["):
        return isinstance(value, list) and all(_has_type(entry, _element(kind)) for entry in value)
    for name in kind.split(" | "):
        types = _TYPES[name][0]
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            return True
    return False


def _element(kind: str) -> str:
    return kind.removeprefix("tuple[").removesuffix(", ...]")
