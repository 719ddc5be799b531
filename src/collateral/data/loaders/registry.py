"""The loader of each format by name."""

import importlib
from pathlib import Path

from collateral.data.facts import Fact, first_records
from collateral.data.loaders.about import About
from collateral.errors import unknown_name

FORMATS = ("ckd", "commonsense", "counterfact", "elken", "embedded", "knowedit", "mquake", "zsre")


def load_facts(loader: str, path: Path, limit: int | None = None) -> list[Fact]:
    """Return the facts of the first `limit` records of a file (a folder for `embedded`) in a named format.

    Raises:
        CollateralError: no such format, or a malformed record; the message names file, record and field.
    """
    if loader not in FORMATS:
        raise unknown_name("loader", loader, FORMATS)
    facts: list[Fact] = importlib.import_module(f"collateral.data.loaders.{loader}").load(path)
    return first_records(facts, limit)


def about(loader: str) -> About:
    """Return title, licence, citation and home of what a loader reads.

    Raises:
        CollateralError: no such format.
    """
    if loader not in FORMATS:
        raise unknown_name("loader", loader, FORMATS)
    found: About = importlib.import_module(f"collateral.data.loaders.{loader}").ABOUT
    return found


def about_table() -> str:
    """Return a Markdown table of all loaders: what they read, its licence, where it is, and what to cite."""
    lines = ["| loader | data set | licence | home | cite |", "|---|---|---|---|---|"]
    for loader in FORMATS:
        one = about(loader)
        cells = (f"`{loader}`", one.title, one.licence, one.home, one.citation)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
