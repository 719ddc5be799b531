"""What a source file says, without its comments: a hash of its syntax tree, and what it imports. Torch-free."""

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

from collateral.io.atomic import write_text


class Tree(NamedTuple):
    """A source file.

    Attributes:
        sha256: of its syntax tree.
        imports: names of the package's modules that it imports.
        libraries: first names of what else it imports.
    """

    sha256: str
    imports: tuple[str, ...]
    libraries: tuple[str, ...]


class Trees:
    """The trees of source files, each parsed once: a study's every job starts processes that ask for all of them.

    Args:
        store: a file that remembers them by the bytes of the source and the version of Python, so that no entry can
            be out of date; None for this process alone. One that is missing or damaged is made anew.
    """

    def __init__(self, store: Path | None = None):
        self._store = store
        self._known = _read(store) if store else {}
        self._stored = len(self._known)
        self._paths: dict[Path, Tree] = {}

    def of(self, path: Path) -> Tree:
        """Return the tree of a file."""
        if path not in self._paths:
            text = path.read_bytes()
            key = hashlib.sha256(text).hexdigest()
            if key not in self._known:
                self._known[key] = _parsed(text.decode("utf-8"))
            self._paths[path] = self._known[key]
        return self._paths[path]

    def save(self) -> None:
        """Write what is new into the store; a folder that cannot be written costs time and nothing else."""
        if self._store is None or len(self._known) == self._stored:
            return
        text = json.dumps({"python": _python(), "trees": self._known})
        try:
            write_text(self._store, text)
        except OSError:
            return
        self._stored = len(self._known)


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))  # what a tree looks like is the version's


def _read(store: Path) -> dict[str, Tree]:
    try:
        found = json.loads(store.read_text(encoding="utf-8"))
        if found["python"] != _python():
            return {}
        return {
            key: Tree(sha256, tuple(imports), tuple(libraries))
            for key, (sha256, imports, libraries) in found["trees"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _parsed(text: str) -> Tree:
    tree = ast.parse(text)
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] if isinstance(first.value.value, str) else node.body
        elif isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = tuple(sorted(name for name in imports if name.split(".")[0] == "collateral"))
    others = tuple(sorted({name.split(".")[0] for name in imports} - {"collateral"}))
    return Tree(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), own, others)
