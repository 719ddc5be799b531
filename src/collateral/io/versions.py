"""The libraries that results depend on, and their installed versions. Torch-free."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

NUMERIC = (
    "collateral",
    "torch",
    "transformers",
    "lm-eval",
    "datasets",
    "safetensors",
    "pyarrow",
    "polars",
    "numpy",
    "scipy",
)
"""Those that can change a number; every artifact says which versions it was made with."""
DISTRIBUTIONS = {"collateral": "collateral-edits"}
"""Libraries that are installed under another name than they are imported by."""
DRAWING = ("altair", "snakemake")
"""Those that the report and the workflow are made with."""


@functools.cache
def versions(names: tuple[str, ...] = (*NUMERIC, *DRAWING)) -> dict[str, str]:
    """Return the installed version of each library, and of Python."""
    return {name: _version(name) for name in names} | {"python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
