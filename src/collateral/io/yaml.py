"""YAML of a bounded size, as data alone. Torch-free.

A few hundred bytes of YAML can stand for billions of values, by names for parts that repeat ("billion laughs").
"""

from pathlib import Path
from typing import Any

import yaml

from collateral.errors import CollateralError

MAX_BYTES = 4 * 2**20
MAX_VALUES = 200_000


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where PyYAML was built with it: ten times as fast."""


def read_yaml(path: Path, kind: str, loader: type[Loader] = Loader) -> Any:
    """Return the value of a YAML file.

    Args:
        path: the file.
        kind: what it should be, for the message.
        loader: a safe loader.

    Raises:
        CollateralError: not readable, not YAML, larger than `MAX_BYTES`, of more than `MAX_VALUES` values, or so
            deep that it cannot be followed.
    """
    path = Path(path)
    if not path.is_file():
        raise CollateralError(f"{path}: file not found; give a file that holds {kind}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CollateralError(
                f"{path}: {size} bytes of {kind}, over the limit of {MAX_BYTES}; give a smaller file"
            )
        parsed = loader(path.read_text(encoding="utf-8"))
        node = parsed.get_single_node()
        if node is None:
            return None
        values = _values(node, {})
        if values > MAX_VALUES:
            raise CollateralError(
                f"{path}: {kind} of {values} values, over the limit of {MAX_VALUES}; write it with fewer names for "
                "parts that repeat (&name, *name)"
            )
        return parsed.construct_document(node)
    except RecursionError:
        raise CollateralError(
            f"{path}: {kind} that is nested too deeply, or in itself; make it flatter"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CollateralError(f"{path}: not readable as {kind} ({reason}); mend the YAML") from None


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for, each part that repeats counted as often as it does."""
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
