"""Ability tasks by name: those of this package, those of the user's folders, those of lm-eval itself.

A task is one YAML file in lm-eval's format. Its `data_files` are taken relative to the YAML file, so that neither
the working directory nor the place of installation matters. Only `load_tasks` imports lm-eval, and `benchmarks_of`
for names that nothing else knows.
"""

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError, unknown_name
from collateral.io.atomic import sha256_file
from collateral.tasks.benchmarks.catalogue import benchmark, known_tasks
from collateral.tasks.benchmarks.prepared_data import (
    Needs,
    Prepared,
    leaves,
    needs,
    needs_of_known,
    prepared_data,
    redirect,
)
from collateral.tasks.task_yaml import EMBEDDED, TaskFile, existing, indexed, members


def load_tasks(
    names: Sequence[str],
    folders: Sequence[Path] = (),
    data: Prepared | None = None,
    num_fewshot: int | None = None,
) -> dict[str, Any]:
    """Return name → lm-eval Task (or Group), for `simple_evaluate(tasks=list(loaded.values()))`.

    A name is looked up in the last folder first, then in the earlier ones, in this package, and in lm-eval.
    A group of a folder is replaced by its tasks; a group of lm-eval stays one object, with its own aggregate.

    Args:
        names: of tasks and groups.
        folders: folders with task YAML files.
        data: (benchmark, split) → prepared file. Tasks on a data set of the catalogue read these and nothing else;
            their prompts and metrics stay as they are. None: lm-eval fetches what it needs from the hub by itself.
        num_fewshot: of the suite; decides whether the examples' split is needed.

    Raises:
        CollateralError: a name is unknown (the nearest is named), a YAML file is broken, or a data file is missing.
    """
    from lm_eval.tasks import TaskManager

    index = indexed(folders)
    ours = list(members([name for name in names if name in index], index))
    loaded: dict[str, Any] = {}
    if ours:
        manager = TaskManager(include_path=[EMBEDDED, *folders], include_defaults=False)
        # A group member may override keys of its YAML file: this is how the absolute data paths get in.
        listed = [
            {
                "task": name,
                **_absolute_data(index[name]),
                **prepared_data(name, index[name].config, data, num_fewshot),
            }
            for name in ours
        ]
        for entry in listed:
            _refuse_empty_data(entry["task"], entry)
        loaded |= _built(manager, {entry["task"]: {"group": "folders", "task": [entry]} for entry in listed})
    theirs = [name for name in names if name not in index]
    for name in theirs:
        loaded |= _load_default(_manager(name), name, index, data, num_fewshot)
    return loaded


def _manager(name: str) -> Any:
    """Return lm-eval's task manager for one of its tasks; reading all its task files would take eight seconds."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    folders = (Path(lm_eval.__file__).parent / "tasks").iterdir()
    near = [folder for folder in folders if folder.is_dir() and f"{name}_".startswith(f"{folder.name}_")]
    if near:
        manager = TaskManager(include_path=near, include_defaults=False)
        if name in manager.all_tasks:
            return manager
    return TaskManager()


def task_names(folders: Sequence[Path] = ()) -> list[str]:
    """Return the names of the tasks and groups of this package and of the folders, sorted."""
    return sorted(indexed(folders))


def task_metadata(name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the `metadata` block of a task; of lm-eval's own tasks what `benchmarks/tasks.yaml` says of them.

    Keys of this package's tasks: version, ability, chance (absent for perplexity), prompt_source, primary (the name
    of the metric), higher_is_better. Of lm-eval's own: ability, chance, primary, also (metrics that are primary too),
    higher_is_better; empty if unknown.
    """
    entry = indexed(folders).get(name)
    if entry:
        return dict(entry.config.get("metadata") or {})
    known = known_tasks().get(name)
    if known is None:
        return {}
    about = {"ability": known.ability, "primary": known.primary, "higher_is_better": known.higher_is_better}
    if known.also:
        about["also"] = list(known.also)
    return about if known.chance is None else {**about, "chance": known.chance}


def chance_levels(name: str, folders: Sequence[Path] = ()) -> float | None:
    """Return the accuracy of random choice, a share of 1; None where the task states none.

    Raises:
        CollateralError: the stated chance is not a number from 0 to 1.
    """
    chance = task_metadata(name, folders).get("chance")
    if chance is None:
        return None
    if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise CollateralError(
            f"task '{name}': metadata.chance is {chance!r}; give a number from 0 to 1, or leave it out"
        )
    return float(chance)


def benchmarks_of(
    names: Sequence[str], folders: Sequence[Path] = (), num_fewshot: int | None = None
) -> dict[str, list[str]]:
    """Return benchmark → splits that the named tasks need prepared, both sorted.

    A name that neither the folders nor `benchmarks/tasks.yaml` know is looked up in lm-eval, which takes seconds.

    Raises:
        CollateralError: a name is unknown, or a YAML file is broken.
    """
    index = indexed(folders)
    read: list[Needs | None] = []
    unknown = []
    for name in members(names, index):
        if name in index:
            read.append(needs(index[name].config, num_fewshot))
        elif name in known_tasks():
            read += needs_of_known(name, num_fewshot)
        else:
            unknown.append(name)
    if unknown:
        from lm_eval.tasks import TaskManager

        manager = TaskManager()
        for name in unknown:
            _checked(manager, name, index)
            configs = [manager.task_index[leaf].cfg or {} for leaf in leaves(manager, name)]
            read += [needs(config, num_fewshot) for config in configs]
    found: dict[str, set[str]] = {}
    for need in read:
        if need is not None:
            found.setdefault(need.benchmark, set()).update(need.splits)
    return {name: sorted(found[name]) for name in sorted(found)}


def suite_metadata(
    suites: Mapping[str, Sequence[str]], folders: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return suite → task → its metadata, as `task_metadata` gives it.

    Args:
        suites: suite → names of its tasks.
        folders: suite → folders with task files.
    """
    return {
        suite: {name: task_metadata(name, [Path(folder) for folder in folders[suite]]) for name in names}
        for suite, names in suites.items()
    }


def task_fingerprint(names: Sequence[str], folders: Sequence[Path] = ()) -> str:
    """Return the sha256 over all files that decide what the named tasks measure.

    These are the YAML file, what it includes, the Python files of its `!function` tags and its data files, by file
    name and content and not by folder, and the benchmarks that the tasks read with their fields. A name that is in
    no folder counts with lm-eval's version. Prepared files of benchmarks are not among them: they are inputs of
    their own.

    Raises:
        CollateralError: a YAML file is broken or a data file is missing.
    """
    index = indexed(folders)
    digest = hashlib.sha256()
    for name in members(names, index):
        if name in index:
            read = [needs(index[name].config)]
            parts = [f"{path.name} {sha256_file(path)}" for path in index[name].sources]
        else:
            read = [*needs_of_known(name)]
            parts = [f"lm-eval {version('lm-eval')}"]
        parts += [f"{need.benchmark} {','.join(benchmark(need.benchmark).fields)}" for need in read if need]
        digest.update("\n".join([name, *sorted(parts), ""]).encode())
    return digest.hexdigest()


def _load_default(
    manager: Any, name: str, index: Mapping[str, TaskFile], data: Prepared | None, num_fewshot: int | None
) -> dict[str, Any]:
    _checked(manager, name, index)
    redirect(manager, name, data, num_fewshot)
    with _first_item(name):
        built = manager.load([name])
    group = built.get("groups", {}).get(name)
    return {name: group} if group is not None else dict(built["tasks"])


def _built(manager: Any, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tasks of some groups, each of one task."""
    built: dict[str, Any] = {}
    for name, group in wanted.items():
        with _first_item(name):
            built |= manager.load([group])["tasks"]
    return built


def _refuse_empty_data(name: str, config: Mapping[str, Any]) -> None:
    for path in existing((config.get("dataset_kwargs") or {}).get("data_files") or []):
        if path.stat().st_size < 2 and not path.read_bytes().strip():
            raise CollateralError(
                f"task '{name}' has no items: its data file {path} is empty; restore the file"
            )


@contextmanager
def _first_item(name: str) -> Iterator[None]:
    """Name the task whose first item lm-eval asks for while it builds it, and does not get."""
    try:
        yield
    except (IndexError, StopIteration) as error:
        said = (str(error).splitlines() or [""])[0]
        raise CollateralError(
            f"task '{name}' has no items, or its first cannot be read ({type(error).__name__}: {said}); check its "
            "data file, and what its process_docs leaves of it"
        ) from error


def _checked(manager: Any, name: str, index: Mapping[str, TaskFile]) -> None:
    if name not in manager.all_tasks:
        # lm-eval has thousands of names: only those close to this one belong into a message.
        close = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.5)
        raise unknown_name("task", name, [*index, *close])


def _absolute_data(entry: TaskFile) -> dict[str, Any]:
    options = entry.config.get("dataset_kwargs")
    return {"dataset_kwargs": dict(options)} if isinstance(options, dict) else {}
