"""Which benchmarks a task reads, and how its task file is turned to the prepared files. Torch-free."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collateral.errors import CollateralError
from collateral.tasks.benchmarks.catalogue import KnownTask, benchmark, known_tasks, standing_in

Prepared = Mapping[tuple[str, str], Path]


@dataclass(frozen=True)
class Needs:
    """The benchmark that a task reads: the split that it scores, and that of its few-shot examples if it has any."""

    benchmark: str
    splits: tuple[str, ...]


def needs(config: Mapping[str, Any], num_fewshot: int | None = None) -> Needs | None:
    """Return what a task file reads from the catalogue; None where its data set is not in it.

    Args:
        config: the task file, includes merged.
        num_fewshot: of the suite; None leaves it to the task file.
    """
    name = standing_in(config.get("dataset_path"), config.get("dataset_name"))
    if name is None:
        return None
    scored = config.get("test_split") or config.get("validation_split")
    if not scored:
        raise CollateralError(
            f"task '{config.get('task')}': names no test_split and no validation_split; name one in the task file"
        )
    shots = config.get("num_fewshot") or 0 if num_fewshot is None else num_fewshot
    return Needs(name, _splits(scored, config.get("fewshot_split") or config.get("training_split"), shots))


def needs_of_known(name: str, num_fewshot: int | None = None) -> tuple[Needs, ...]:
    """Return the same for one of lm-eval's own tasks or groups by name, without reading lm-eval.

    Empty if the name is not among `known_tasks`.
    """
    task: KnownTask | None = known_tasks().get(name)
    if task is None:
        return ()
    if task.benchmark is None:
        return tuple(need for member in task.members for need in needs_of_known(member, num_fewshot))
    shots = task.shots if num_fewshot is None else num_fewshot
    return (Needs(task.benchmark, _splits(task.split, task.examples, shots)),)


def _splits(scored: str, examples: str | None, shots: int) -> tuple[str, ...]:
    # Without a split of their own, few-shot examples come from the scored one.
    return (scored, examples) if shots and examples and examples != scored else (scored,)


def prepared_data(
    task: str, config: Mapping[str, Any], data: Prepared | None, num_fewshot: int | None = None
) -> dict[str, Any]:
    """Return the keys that turn a task file to the prepared files: none without `data` or outside the catalogue.

    Raises:
        CollateralError: a split that the task needs is not among the prepared files.
    """
    found = needs(config, num_fewshot)
    if found is None:
        return {}
    if data is None:
        if "/" not in str(config.get("dataset_path")):  # not a name of the hub, which lm-eval could fetch
            raise _missing(task, found.benchmark, found.splits[0], None)
        return {}
    files = {}
    for split in found.splits:
        path = data.get((found.benchmark, split))
        if path is None or not Path(path).is_file():
            raise _missing(task, found.benchmark, split, path)
        files[split] = str(Path(path).absolute())
    # lm-eval reads every split that the task file names, even where no example is drawn from it.
    absent = [
        key
        for key in ("training_split", "validation_split", "fewshot_split")
        if config.get(key) and config[key] not in files
    ]
    return {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        **dict.fromkeys(absent),
    }


def _missing(task: str, name: str, split: str, path: Path | None) -> CollateralError:
    sources = benchmark(name).splits.get(split)
    if sources is None:
        return CollateralError(
            f"task '{task}' needs the benchmark '{name}', split '{split}', which the catalogue does not have "
            f"(it has: {', '.join(benchmark(name).splits)}); set num_fewshot to 0 if it is for examples"
        )
    raw = " and ".join(file.name for file in sources[0].files)
    state = f"{path} is not there" if path else "no prepared file was given"
    return CollateralError(
        f"task '{task}' needs the benchmark '{name}', split '{split}': {state}; "
        f"fetch it, or put {raw} into the mirror"
    )


def redirect(manager: Any, name: str, data: Prepared | None, num_fewshot: int | None = None) -> None:
    """Turn one of lm-eval's own tasks, or every task of one of its groups, to the prepared files.

    The task manager's index entry is replaced by the task file's content with other data; prompts and metrics stay.

    Raises:
        CollateralError: a split that a task needs is not among the prepared files.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    if data is None:
        return
    for task in leaves(manager, name):
        entry = manager.task_index[task]
        turned = prepared_data(task, entry.cfg or {}, data, num_fewshot)
        if turned:
            config = {**load_yaml(entry.yaml_path, resolve_func=True), **turned}
            manager.task_index[task] = replace(entry, yaml_path=None, cfg=config)


def leaves(manager: Any, name: str) -> Iterator[str]:
    """Yield the tasks below a name of lm-eval: itself, or those of its group or tag, depth first."""
    entry = manager.task_index[name]
    listed = (entry.cfg or {}).get("task")
    if entry.kind.name == "TAG":
        members = sorted(entry.tags)
    elif isinstance(listed, list):
        members = [one if isinstance(one, str) else str(one.get("task", one.get("group"))) for one in listed]
    else:
        yield name
        return
    for member in members:
        if member in manager.task_index:
            yield from leaves(manager, member)
