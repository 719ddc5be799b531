"""What a result was made from: a fingerprint of the code, versions of the libraries, facts about the machine."""

import ast
import hashlib
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

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


def fingerprint(script: Path, *modules: str) -> str:
    """Return a hash of a script and of every package file that it, or one of `modules`, imports.

    The hash is over syntax trees: comments, docstrings and layout do not count, so that a reworded comment
    reruns nothing, while a changed formula reruns what depends on it. Imports are followed by their absolute
    names, but for the frame of jobs; a module that is imported by name at run time (an editing method) must be named
    in `modules`.
    """
    seen: dict[str, str] = {}
    waiting = [*_imports(Path(script)), *modules]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in seen or name in FRAME or path is None:
            continue
        seen[name] = _tree_hash(path)
        waiting += _imports(path)
    parts = [_tree_hash(Path(script)), *(f"{name} {value}" for name, value in sorted(seen.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] if isinstance(first.value.value, str) else node.body
    return tree


@cache
def _tree_hash(path: Path) -> str:
    return hashlib.sha256(ast.dump(_tree(path)).encode()).hexdigest()


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(sorted({name for name in found if name.split(".")[0] == "collateral"}))


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
