"""What a result was made from: a fingerprint of the code, versions of the libraries, facts about the machine."""

import hashlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from collateral.codetrees import Tree, Trees
from collateral.libraries import NUMERIC, versions

PACKAGE = Path(__file__).parent
# How a job logs, which card it takes, what an interrupted one keeps, never what it computes: a change reruns nothing.
FRAME = frozenset({"collateral.joblog", "collateral.cardlocks", "collateral.kept"})


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
    reached = _reached(script, modules, trees or Trees())
    own = reached.pop("")
    parts = [own.sha256, *(f"{name} {tree.sha256}" for name, tree in sorted(reached.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def libraries(script: Path, *modules: str, trees: Trees | None = None) -> dict[str, str]:
    """Return the versions of the libraries that a script's code imports, and that can change a number.

    Args:
        script: its file.
        modules: of the package, by name, as for `fingerprint`.
        trees: of source files that are known already.
    """
    imported = {
        name for tree in _reached(script, modules, trees or Trees()).values() for name in tree.libraries
    }
    return {
        name: version for name, version in versions(NUMERIC).items() if name.replace("-", "_") in imported
    }


def modules(script: Path, *modules: str, trees: Trees | None = None) -> dict[str, str]:
    """Return file → beginning of the hash of its syntax tree, of all that `fingerprint` looks at."""
    own = _reached(script, modules, trees or Trees())
    return {name or script.name: tree.sha256[:12] for name, tree in own.items()}


def _reached(script: Path, modules: Iterable[str], trees: Trees) -> dict[str, Tree]:
    """Return name → tree of a script ("") and of all package files that it, or one of the modules, imports."""
    found = {"": trees.of(Path(script))}
    waiting = [*found[""].imports, *modules]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in found or name in FRAME or path is None:
            continue
        found[name] = trees.of(path)
        waiting += found[name].imports
    return found


def _path(name: str) -> Path | None:
    relative = PACKAGE.joinpath(*name.split(".")[1:])
    module = relative.with_suffix(".py")
    if module.is_file():
        return module
    return relative / "__init__.py" if (relative / "__init__.py").is_file() else None


def machine() -> dict[str, Any]:
    """Return processor, cores and operating system; no host or user name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
