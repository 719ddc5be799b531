"""The fingerprint of a job's code: the definitions that its script reaches, and nothing else.

A name that a definition uses is followed to the definition that it stands for, through the imports of its module; one
that stands for no definition counts as its whole module. Names of modules are no part of the hash, so that a module
can be moved. Entries of a registry (a method, a regularizer, a loader, a model family) are imported by name: the
settings of the job name them, and the whole module of each counts.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from collateral.io.versions import NUMERIC, versions
from collateral.runtime.definitions import EFFECTS, Definition, Source, Sources, parse_script

PACKAGE = Path(__file__).parents[1]
OUTSIDE = "collateral.runtime"
"""How a job runs, never what it computes: a change there reruns nothing."""

_ROOT = "collateral"


class Code(NamedTuple):
    """The code of a job.

    Attributes:
        fingerprint: hash of all that it reaches.
        definitions: `module:name` → hash of what the definition computes; the script under its file's name.
        libraries: first names of the libraries that they use.
    """

    fingerprint: str
    definitions: Mapping[str, str]
    libraries: frozenset[str]


def find_code(script: Path, *entries: str, sources: Sources | None = None) -> Code:
    """Return the code that a script reaches.

    Args:
        script: its file.
        entries: modules that its job imports by name, or one definition of such a module: `module:name`.
        sources: of source files that are parsed already.
    """
    graph = _Graph(sources or Sources())
    root = parse_script(script.read_text(encoding="utf-8"))
    waiting = graph.targets(root, "")
    for entry in entries:
        waiting += graph.resolve(entry.replace(":", "."), "")[0]
    reached: set[tuple[str, str]] = set()
    while waiting:
        node = waiting.pop()
        if node in reached:
            continue
        reached.add(node)
        module, name = node
        waiting += graph.targets(graph.definition(node), module)
        if name != EFFECTS and EFFECTS in graph.source(module).definitions:
            waiting.append((module, EFFECTS))
    parts = {f"{module}:{name}": graph.identity((module, name)) for module, name in reached}
    known = {script.name: graph.identify(root, "")} | dict(sorted(parts.items()))
    text = "\n".join([known[script.name], *sorted(set(parts.values()))])
    libraries = {use for node in reached for use in graph.libraries(graph.definition(node))}
    return Code(
        hashlib.sha256(text.encode()).hexdigest()[:16], known, frozenset(libraries | graph.libraries(root))
    )


def library_versions(code: Code) -> dict[str, str]:
    """Return the versions of the libraries that the code uses, and that can change a number."""
    return {
        name: version
        for name, version in versions(NUMERIC).items()
        if name.replace("-", "_") in code.libraries
    }


class _Graph:
    """Definitions of the package and the edges between them; a node is (module, name)."""

    def __init__(self, sources: Sources):
        self._sources = sources
        self._identities: dict[tuple[str, str], str] = {}

    def source(self, module: str) -> Source:
        """Return a parsed module of the package."""
        path = _path(module)
        assert path is not None, module
        return self._sources.read(path)

    def definition(self, node: tuple[str, str]) -> Definition:
        return self.source(node[0]).definitions[node[1]]

    def whole(self, module: str) -> list[tuple[str, str]]:
        """Return all definitions of a module, and those that it imports."""
        source = self.source(module)
        imported = [node for dotted in source.imports.values() for node in self.resolve(dotted, module)[0]]
        return [*((module, name) for name in source.definitions), *imported]

    def targets(self, definition: Definition, module: str) -> list[tuple[str, str]]:
        """Return the package's definitions that one of a module uses."""
        return [node for use in definition.uses for node in self.resolve(use, module)[0]]

    def resolve(self, use: str, module: str) -> tuple[list[tuple[str, str]], str]:
        """Return the definitions that a name stands for, and what follows it; none for a library or `OUTSIDE`."""
        if use.startswith("."):
            name, _, attributes = use[1:].partition(".")
            return [(module, name)], attributes
        if use.split(".")[0] != _ROOT or _is_outside(use):
            return [], use
        owner, rest = _ROOT, use.split(".")[1:]
        while rest and _path(f"{owner}.{rest[0]}") is not None:
            owner = f"{owner}.{rest.pop(0)}"
        if not rest:
            return self.whole(owner), ""
        source = self.source(owner)
        if rest[0] in source.definitions:
            return [(owner, rest[0])], ".".join(rest[1:])
        if rest[0] in source.imports:
            return self.resolve(".".join([source.imports[rest[0]], *rest[1:]]), owner)
        return self.whole(owner), ".".join(rest)

    def identity(self, node: tuple[str, str]) -> str:
        """Return what a definition computes, as a hash: its tree, and the trees that its names stand for."""
        if node not in self._identities:
            self._identities[node] = self.identify(self.definition(node), node[0])
        return self._identities[node]

    def identify(self, definition: Definition, module: str) -> str:
        parts = [definition.sha256]
        for use in definition.uses:
            nodes, rest = self.resolve(use, module)
            if nodes:
                trees = sorted(f"{name} {self.definition((owner, name)).sha256}" for owner, name in nodes)
                parts.append(f"{' '.join(trees)} {rest}")
            else:
                parts.append(use.split(".")[-1] if _is_outside(use) else use)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def libraries(self, definition: Definition) -> set[str]:
        """Return the first names of the libraries that a definition uses."""
        return {use.split(".")[0] for use in definition.uses if not use.startswith(".")} - {_ROOT}


def reached_files(code: Code) -> list[str]:
    """Return the package's files that have a definition of the code, relative to the package."""
    _, *nodes = code.definitions  # the first is the script
    paths = [_path(module) for module in sorted({node.partition(":")[0] for node in nodes})]
    return [path.relative_to(PACKAGE).as_posix() for path in paths if path is not None]


def _is_outside(dotted: str) -> bool:
    return f"{dotted}.".startswith(f"{OUTSIDE}.")


def _path(module: str) -> Path | None:
    """Return the file of a module of the package, by its dotted name; None where it is none."""
    relative = PACKAGE.joinpath(*module.split(".")[1:])
    path = relative.with_suffix(".py") if relative != PACKAGE else relative / "__init__.py"
    if path.is_file():
        return path
    return relative / "__init__.py" if (relative / "__init__.py").is_file() else None
