"""The loaders by name: each is a file in `loaders/` that defines `load(path)` and ABOUT."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collateral.data.about import About
from collateral.errors import unknown_name

if TYPE_CHECKING:
    from collateral.data.facts import Fact

FOLDER = Path(__file__).parent / "loaders"


def loader_names() -> list[str]:
    """Return the names of all loaders."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def load_facts(loader: str, path: Path, limit: int | None = None) -> "list[Fact]":
    """Return the facts of the first `limit` records of a file (a folder for `embedded`) in a named format.

    Raises:
        CollateralError: no such loader, or a malformed record; the message names file, record and field.
    """
    from collateral.data.facts import first_records  # pyarrow, which a config's check does without

    facts: list[Fact] = _import_loader(loader).load(path)
    return first_records(facts, limit)


def read_about(loader: str) -> About:
    """Return title, licence, citation and home of what a loader reads.

    Raises:
        CollateralError: no such loader.
    """
    about: About = _import_loader(loader).ABOUT
    return about


def about_table() -> str:
    """Return a Markdown table of all loaders: what they read, its licence, where it is, and what to cite."""
    lines = ["| loader | data set | licence | home | cite |", "|---|---|---|---|---|"]
    for loader in loader_names():
        about = read_about(loader)
        cells = (f"`{loader}`", about.title, about.licence, about.home, about.citation)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _import_loader(loader: str) -> Any:
    """Return a loader's module: the one place where it is imported by name."""
    if loader not in loader_names():
        raise unknown_name("loader", loader, loader_names())
    return importlib.import_module(f"collateral.data.loaders.{loader}")
