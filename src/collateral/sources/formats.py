"""The loader of each format by name."""

import importlib
from pathlib import Path

from collateral.errors import unknown_name
from collateral.facts import Fact

FORMATS = ("counterfact", "embedded", "zsre")


def load_facts(loader: str, path: Path, limit: int | None = None) -> list[Fact]:
    """Return the facts of a file (a folder for `embedded`) in a named format.

    Raises:
        CollateralError: no such format, or a malformed record; the message names file, record and field.
    """
    if loader not in FORMATS:
        raise unknown_name("loader", loader, FORMATS)
    facts: list[Fact] = importlib.import_module(f"collateral.sources.{loader}").load(path)
    return facts[:limit]
