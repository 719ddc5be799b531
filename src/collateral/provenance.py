"""What a result was made from: a fingerprint of the code, versions of the libraries, facts about the machine."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from collateral.codetrees import Trees

PACKAGE = Path(__file__).parent
LIBRARIES = (
    "collateral",
    "torch",
    "transformers",
    "lm-eval",
    "datasets",
    "safetensors",
    "pyarrow",
    "polars",
    "altair",
    "numpy",
    "scipy",
    "snakemake",
)
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
    trees = trees or Trees()
    seen: dict[str, str] = {}
    own = trees.of(Path(script))
    waiting = [*own.imports, *modules]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in seen or name in FRAME or path is None:
            continue
        seen[name] = trees.of(path).sha256
        waiting += trees.of(path).imports
    parts = [own.sha256, *(f"{name} {value}" for name, value in sorted(seen.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _path(name: str) -> Path | None:
    relative = PACKAGE.joinpath(*name.split(".")[1:])
    module = relative.with_suffix(".py")
    if module.is_file():
        return module
    return relative / "__init__.py" if (relative / "__init__.py").is_file() else None


def versions() -> dict[str, str]:
    """Return the installed version of every library that can change a number."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"python": platform.python_version()}


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
