"""What a result was made from: a fingerprint of the code, versions of the libraries, facts about the machine."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from collateral.io.versions import NUMERIC, versions
from collateral.runtime.source_trees import Tree, Trees

PACKAGE = Path(__file__).parents[1]
# How a job logs, which card it takes, what an interrupted one keeps, never what it computes: a change reruns nothing.
FRAME = frozenset({"collateral.runtime.job", "collateral.runtime.gpu_lock", "collateral.runtime.job_cache"})


def fingerprint(script: Path, *modules: str, trees: Trees | None = None) -> str:
    """Return a hash of a script and of every package file that it, or one of `modules`, imports.

    The hash is over syntax trees: comments, docstrings and layout do not count, so that a reworded comment
    reruns nothing, while a changed formula reruns what depends on it. Imports are followed by their absolute
    names, but for the frame of jobs; a module that is imported by name at run time (an editing method) must be named
    in `modules`.

    Args:
        script: its file.
        modules: of the package, by name.
        trees: of source files that are known already.
    """
    return identity(reached(script, *modules, trees=trees))


def reached(script: Path, *modules: str, trees: Trees | None = None) -> dict[str, Tree]:
    """Return name → tree of a script (by its file's name) and of all package files that it, or a module, imports.

    Args:
        script: its file.
        modules: of the package, by name, as for `fingerprint`.
        trees: of source files that are known already.
    """
    trees = trees or Trees()
    own = trees.of(Path(script))
    found: dict[str, Tree] = {}
    waiting = [*own.imports, *modules]
    while waiting:
        name = waiting.pop()
        path = None if name in found or name in FRAME else _path(name)
        if path is not None:
            found[name] = trees.of(path)
            waiting += found[name].imports
    return {Path(script).name: own} | dict(sorted(found.items()))


def identity(code: Mapping[str, Tree]) -> str:
    """Return the fingerprint of what `reached` gives."""
    own, *others = code.items()
    parts = [own[1].sha256, *(f"{name} {tree.sha256}" for name, tree in others)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def libraries(code: Mapping[str, Tree]) -> dict[str, str]:
    """Return the versions of the libraries that `reached` code imports, and that can change a number."""
    imported = {name for tree in code.values() for name in tree.libraries}
    return {
        name: version for name, version in versions(NUMERIC).items() if name.replace("-", "_") in imported
    }


def _path(name: str) -> Path | None:
    relative = PACKAGE.joinpath(*name.split(".")[1:])
    module = relative.with_suffix(".py")
    if module.is_file():
        return module
    return relative / "__init__.py" if (relative / "__init__.py").is_file() else None
