"""What a delta says of itself, checked key by key: a file that another program wrote may say anything. Torch-free."""

import math
from collections.abc import Mapping
from typing import Any

from collateral.deltas.limits import MOST_RANKS

_DIGITS = 64  # of a sha256
ENCODINGS = ("elements", "factors")
_FACTORS = ("float32", "float64")


def check_head(head: Any, dtypes: Mapping[str, Any], form: str) -> None:
    """Check the metadata of a delta, so that its readers can rely on every key and type.

    Args:
        head: what the file holds.
        dtypes: the types of weights that a delta can be of.
        form: name and version of the format.

    Raises:
        ValueError: the first key that is not as it should be.
    """
    if not isinstance(head, dict) or head.get("format") != form:
        raise ValueError(f"its format is not {form}")
    _check(str(head.get("dtype")) in dtypes, "dtype")
    _check(head.get("mode") in ("additive", "replacing"), "mode")
    _check(isinstance(head.get("base_sha256"), str), "base_sha256")
    _check(isinstance(head.get("editor"), dict), "editor")
    for name in ("from_edits", "to_edits"):
        _check(_count(head.get(name)), name)
    _check(head["from_edits"] <= head["to_edits"], "to_edits")
    encoding = encoding_of(head)
    _check(encoding in ENCODINGS, "encoding")
    if encoding == "factors":
        _check(head.get("factors") in _FACTORS, "factors")
        _check(head["mode"] == "additive", "mode")
    _check(isinstance(head.get("parameters"), dict), "parameters")
    for name, about in head["parameters"].items():
        _check(isinstance(about, dict), f"parameters.{name}")
        shape = about.get("shape")
        _check(
            isinstance(shape, list) and shape != [] and all(map(_count, shape)), f"parameters.{name}.shape"
        )
        for key in ("before", "after"):
            _check(_digits(about.get(key)), f"parameters.{name}.{key}")
        exceptions, size = about.get("exceptions"), math.prod(shape)
        _check(isinstance(exceptions, list), f"parameters.{name}.exceptions")
        for exception in exceptions:
            _check(_exception(exception, size), f"parameters.{name}.exceptions")
        if encoding == "factors":
            _check(len(shape) == 2, f"parameters.{name}.shape")
            _check(not exceptions, f"parameters.{name}.exceptions")
            operations = about.get("operations")
            _check(isinstance(operations, list) and operations != [], f"parameters.{name}.operations")
            for operation in operations:
                _check(_operation(operation), f"parameters.{name}.operations")


def encoding_of(head: Mapping[str, Any]) -> Any:
    """Return how a delta states what changed: by `elements`, which older files do not say, or by `factors`."""
    return head.get("encoding", "elements")


def _check(right: bool, key: str) -> None:
    if not right:
        raise ValueError(f"its key '{key}' is missing, or is not what a delta has there")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _digits(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _DIGITS and not set(value) - set("0123456789abcdef")


def _operation(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("mask"), bool)
        and _count(value.get("rank"))
        and 0 < value["rank"] <= MOST_RANKS
    )


def _exception(value: Any, size: int) -> bool:
    if not isinstance(value, dict) or not _count(value.get("index")) or value["index"] >= size:
        return False
    for key in ("before", "after"):
        if not isinstance(value.get(key), str):
            return False
        float.fromhex(value[key])  # a ValueError of its own
    return True
