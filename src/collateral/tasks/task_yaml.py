"""Task YAML files of folders → their merged configuration, and every file that decides what they measure.

Nothing is imported or run: a `!function` tag is read as text, so that planning a study needs no lm-eval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from collateral.errors import CollateralError
from collateral.io.yaml import Loader, read_yaml

EMBEDDED = Path(__file__).parent
_LOCAL_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text"})  # dataset_path values that read files


class _FunctionName(str):
    """The text behind a `!function` tag, which only lm-eval may resolve, since that runs the code."""

    __slots__ = ()


class _TaskLoader(Loader):
    """A safe loader that knows the `!function` tag and calls nothing."""

    yaml_constructors: ClassVar[dict[str, Any]] = {
        **Loader.yaml_constructors,
        "!function": lambda loader, node: _FunctionName(loader.construct_scalar(node)),
    }


@dataclass(frozen=True)
class TaskFile:
    """One task or group: its merged configuration, and every file that decides what it measures."""

    config: Mapping[str, Any]
    path: Path
    sources: tuple[Path, ...]


def indexed(folders: Sequence[Path]) -> dict[str, TaskFile]:
    """Return every task and group of the folders; a later folder wins over an earlier one."""
    index: dict[str, TaskFile] = {}
    for folder in (EMBEDDED, *(Path(extra).absolute() for extra in folders)):
        if not folder.is_dir():
            raise CollateralError(
                f"{folder}: no such task folder; give a folder with lm-eval task files (*.yaml)"
            )
        found: dict[str, TaskFile] = {}
        for path in sorted(folder.rglob("*.yaml")):
            config, sources = _read(path)
            name = config.get("group", config.get("task"))
            if name is None:
                continue  # a fragment that other files include
            if not isinstance(name, str):
                raise CollateralError(f"{path}: task is {name!r}; give the task a name")
            if name in found:
                raise CollateralError(
                    f"{path}: task '{name}' stands also in {found[name].path}; rename one of them"
                )
            found[name] = TaskFile(config, path, tuple(sources))
        index |= found
    return index


def _read(path: Path, parents: tuple[Path, ...] = ()) -> tuple[dict[str, Any], list[Path]]:
    """Return the configuration, with its includes merged in, and the files that it consists of."""
    if path in parents:
        raise CollateralError(f"{path}: includes itself; remove the circle of 'include' lines")
    config = read_yaml(path, "a task file", _TaskLoader)
    if not isinstance(config, dict):
        raise CollateralError(
            f"{path}: holds {type(config).__name__}, not the keys of an lm-eval task; write `task: …` and others"
        )
    sources = [path, *_function_files(config, path.parent)]
    options = config.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        files = _beside(options["data_files"], path, config.get("dataset_path") in _LOCAL_FORMATS)
        config["dataset_kwargs"] = {**options, "data_files": files}
        sources += existing(files)
    merged: dict[str, Any] = {}
    includes = config.pop("include", [])
    for included in includes if isinstance(includes, list) else [includes]:
        below, more = _read((path.parent / str(included)).resolve(), (*parents, path))
        merged |= below
        sources += more
    return merged | config, sources


def _beside(files: Any, path: Path, local: bool) -> Any:
    """Return `data_files` with absolute paths where they lie beside the YAML file."""
    if isinstance(files, dict):
        return {split: _beside(value, path, local) for split, value in files.items()}
    if isinstance(files, list):
        return [_beside(value, path, local) for value in files]
    found = (
        sorted(path.parent.glob(files))
        if isinstance(files, str) and files and not Path(files).is_absolute()
        else []
    )
    if found:
        return str(found[0]) if len(found) == 1 else [str(one) for one in found]
    if local and "://" not in str(files) and not Path(str(files)).is_file():
        raise CollateralError(
            f"{path}: data file {files!r} not found; give its path relative to the YAML file"
        )
    return files


def existing(files: Any) -> list[Path]:
    """Return those of a task's `data_files` that are files of this machine."""
    if isinstance(files, dict | list):
        values = files.values() if isinstance(files, dict) else files
        return [path for value in values for path in existing(value)]
    return [Path(files)] if Path(str(files)).is_file() else []


def _function_files(value: Any, folder: Path) -> list[Path]:
    """Return the Python files beside the YAML file that its `!function` tags name."""
    if isinstance(value, _FunctionName):
        path = folder / (value.rpartition(".")[0].replace(".", "/") + ".py")
        return [path] if path.is_file() else []
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return sorted({path for part in inner for path in _function_files(part, folder)})
    return []


def members(names: Sequence[str], index: Mapping[str, TaskFile]) -> Iterator[str]:
    """Yield each task name once, with the groups of the folders replaced by what they list."""
    pending, seen = list(reversed(names)), set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        listed = index[name].config.get("task") if name in index else None
        if not isinstance(listed, list):
            yield name
            continue
        for member in listed:
            if not isinstance(member, str) or member not in index:
                path = index[name].path
                raise CollateralError(
                    f"{path}: group '{name}' lists {member!r}; list names of tasks in the folders"
                )
        pending.extend(reversed(listed))


def filtered_metric(metric: str, filtered: str) -> str:
    """Return a metric's name, with the filter that read the answer off the output where there is one.

    A task may read answers in several ways: `exact_match (strict-match)`, `exact_match (flexible-extract)`.
    """
    return metric if filtered == "none" else f"{metric} ({filtered})"
