"""Plain English text from a file, a hub data set, or Python's own documentation."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError, unknown_name


def documents(source: Mapping[str, Any]) -> Iterator[str]:
    """Yield the documents of a text source, always in the same order.

    Args:
        source: one of `{"python_docs": true}` (the help topics that every CPython carries),
            `{"file": path}` (one document a paragraph), or
            `{"hub": id, "revision": commit, "config": name, "split": name, "column": name}` (streamed).

    Raises:
        CollateralError: no such kind of source, or it cannot be read.
    """
    if "python_docs" in source:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
        yield from (topics[name] for name in sorted(topics))
    elif "file" in source:
        path = Path(source["file"])
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CollateralError(
                f"{path}: not readable as UTF-8 text ({error}); set moments.text.file"
            ) from None
        yield from (paragraph for paragraph in text.split("\n\n") if paragraph.strip())
    elif "hub" in source:
        yield from _hub_documents(source)
    else:
        raise unknown_name("text source", next(iter(source), ""), ("python_docs", "file", "hub"))


def _hub_documents(source: Mapping[str, Any]) -> Iterator[str]:
    import datasets

    try:
        rows = datasets.load_dataset(
            source["hub"],
            source.get("config"),
            split=source["split"],
            revision=source["revision"],
            streaming=True,
        )
    except (OSError, ValueError, ConnectionError) as error:
        raise CollateralError(
            f"moments.text.hub '{source['hub']}' cannot be read ({type(error).__name__}); without a network use "
            "moments.text.file or moments.text.python_docs"
        ) from None
    yield from (row[source["column"]] for row in rows)
