"""The path of each kind of file, for the rules and for all code that lists files. Torch-free.

The rules pass wildcards in braces (`ANY`), all other code passes names and numbers; both get the same path. Only
`locate` looks at a disk.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.study.design import Cell

Number = int | str  # a number, or a wildcard that stands for one


ANY = ("{model}", "{dataset}", "{seed}", "{editor}")
"""The chain of a rule: its four wildcards."""


def pad_number(number: Number, width: int = 4) -> str:
    """Return a number with zeros in front, so that names sort as numbers do; a wildcard as it is."""
    return f"{number:0{width}d}" if isinstance(number, int) else number


def manifest(model: str) -> str:
    """Return the list of a model's files, which stands for the model."""
    return f"resources/models/{model}/manifest.json"


def downloads(name: str) -> str:
    """Return a downloaded file; `name` is its folder and file."""
    return f"resources/downloads/{name}"


def download(source: Mapping[str, str]) -> str:
    """Return where the file of a source of the config, or of the benchmarks' catalogue, is downloaded to.

    Its folder is named after its content, as far as that is known, so that all data sets and studies share it.
    """
    file = source.get("file") or source["url"]
    identity = source.get("sha256", "")[:16] or _identity(source)
    return downloads(f"{identity}/{file.rpartition('/')[2]}")


def facts(dataset: str) -> str:
    """Return a data set's table of facts."""
    return f"resources/datasets/{dataset}.parquet"


def training_facts(dataset: str) -> str:
    """Return the table of facts that an editor trains on, where a data set has one of its own."""
    return f"resources/datasets/training/{dataset}.parquet"


def benchmark(name: str, split: str) -> str:
    """Return the prepared items of a benchmark's split."""
    return f"resources/benchmarks/{name}/{split}.jsonl"


def text(source: Mapping[str, Any]) -> str:
    """Return the text that is taken from a hub data set, by what is asked for, so that studies share it."""
    return f"resources/texts/{_identity(source)}.txt"


def _identity(source: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]


def sequence(dataset: str, seed: Number) -> str:
    """Return the order of a data set's edits."""
    return f"results/sequences/{dataset}/seed-{seed}.parquet"


def prepared(model: str, name: str) -> str:
    """Return a file that is computed once from the unedited model."""
    return f"results/prepared/{model}/{name}"


def contexts(model: str) -> str:
    """Return a model's context templates."""
    return prepared(model, "contexts.json")


def name_layers(layers: Iterable[int]) -> str:
    """Return the name of a set of layers: `05`, `03-04`, `00-to-04-17`; three or more in a row are a range."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if not runs or layer != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(layer)
    shown = [[pad_number(layer, 2) for layer in run] for run in runs]
    return "-".join(part for run in shown for part in ([run[0], "to", run[-1]] if len(run) > 2 else run))


def parse_layers(name: str) -> tuple[int, ...]:
    """Return the layers of a set by its name, see `name_layers`.

    Raises:
        ValueError: no set has such a name.
    """
    layers: list[int] = []
    parts = iter(name.split("-"))
    for part in parts:
        layers += range(layers[-1] + 1, int(next(parts, "")) + 1) if layers and part == "to" else [int(part)]
    if not layers or name_layers(layers) != name:
        raise ValueError(f"{name} names no set of layers")
    return tuple(layers)


def moments(model: str, layers: Iterable[int] | str) -> str:
    """Return the second moments of a set of a model's layers; all methods and editors with this set share them."""
    return prepared(
        model, f"moments-{layers if isinstance(layers, str) else name_layers(layers)}.safetensors"
    )


def known(model: str, dataset: str) -> str:
    """Return the table that says which facts a model knows."""
    return prepared(model, f"known-{dataset}.parquet")


def hypernetwork(model: str, dataset: str, seed: Number, learner: str) -> str:
    """Return the trained hypernetwork of an editor."""
    return prepared(model, f"{dataset}/seed-{seed}/hypernetwork-{learner}.safetensors")


def unedited(model: str, name: str) -> str:
    """Return a result of the unedited model."""
    return f"results/unedited/{model}/{name}"


def reference(model: str, dataset: str, seed: Number, edits: Number) -> str:
    """Return the unedited model's probes of one block of facts, named by its last."""
    return unedited(model, f"{dataset}/seed-{seed}/edits-{pad_number(edits)}/reference.parquet")


def chain(model: str, dataset: str, seed: Number, editor: str) -> str:
    """Return the folder of a chain, or of an editor's single edits."""
    return f"results/edited/{model}/{dataset}/seed-{seed}/{editor}"


def checkpoint(cell: Cell | tuple[str, str, Number, str], edits: Number, name: str) -> str:
    """Return a file of one checkpoint."""
    return f"{chain(*cell)}/edits-{pad_number(edits)}/{name}"


def single(cell: Cell | tuple[str, str, Number, str], edits: Number, name: str) -> str:
    """Return a file of one part of the single edits."""
    return f"{chain(*cell)}/singles-{pad_number(edits)}/{name}"


def abilities(suite: str, ending: str = ".json") -> str:
    """Return the name of a suite's results within a checkpoint, or within `unedited`."""
    return f"abilities/{suite}{ending}"


def table(name: str, ending: str = ".parquet") -> str:
    """Return a tidy table."""
    return f"results/tables/{name}{ending}"


PAGE = "results/report/index.html"


def locate(path: str, project: Path) -> Path:
    """Return a path of the config: relative to the working directory, else to the project.

    Raises:
        CollateralError: it is in neither.
    """
    here = Path(path).expanduser()
    file = here if here.exists() or here.is_absolute() else project / path
    if not file.exists():
        raise CollateralError(
            f"config: the path {path} exists neither here nor in {project}; correct the path"
        )
    return file
