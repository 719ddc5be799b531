"""How much a suite asks of a model: items, requests and tokens of each of its tasks. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.tasks.benchmarks.catalogue import known_tasks
from collateral.tasks.registry import benchmarks_of
from collateral.tasks.task_yaml import TaskFile, indexed, members

# Items of the scored split and tokens of one request with its answer, of the published files, rounded; what a file on
# this machine says goes before it.
PUBLISHED = {
    "lambada": (5153, 90),
    "piqa": (1838, 35),
    "arc-easy": (2376, 35),
    "arc-challenge": (1172, 40),
    "hellaswag": (10042, 110),
    "wikitext": (62, 4600),
    "sst2": (872, 30),
    "boolq": (3270, 150),
    "winogrande": (1267, 30),
    "sciq": (1000, 40),
    "gsm8k": (1319, 130),
    "truthfulqa": (817, 40),
    "rte": (277, 90),
    "nq-open": (3610, 20),
    "mutual": (886, 160),
    "samsum": (819, 180),
    "conll2003": (3453, 60),
    "mmlu": (246, 110),  # of each of its 57 subjects, whose names begin so
}
UNKNOWN = (2000, 150)  # of a task that nothing is known about: the plan names it
GENERATED = 256  # new tokens where a task generates and names no bound: lm-eval's own default
_BYTES = 4  # of English a token, with byte-pair vocabularies of 30,000 to 50,000 entries
_SHARE = 0.7  # of a data row's bytes that one request holds: the rest are names of fields and other options


@dataclass(frozen=True)
class TaskCount:
    """What one task asks.

    Attributes:
        name: of the task.
        items: asked, after the suite's limit.
        requests: rows that the model scores for an item: its options.
        tokens: of a request, examples before it included.
        generated: new tokens of an item; 0 where the task scores what is given.
        known: whether the numbers come from a file or a published size, and not from an assumption.
    """

    name: str
    items: int
    requests: int
    tokens: float
    generated: int = 0
    known: bool = True


def suite_counts(
    suite: Mapping[str, Any], folders: Sequence[Path], prepared: Path = Path("resources/benchmarks")
) -> list[TaskCount]:
    """Return what each task of a suite asks.

    Args:
        suite: `tasks`, `limit` and `num_fewshot`.
        folders: folders with task files.
        prepared: folder of the prepared benchmarks; those that are there are counted.

    Raises:
        CollateralError: a task file is broken.
    """
    index = indexed(folders)
    return [_count(name, suite, index, folders, prepared) for name in members(suite["tasks"], index)]


def _count(
    name: str,
    suite: Mapping[str, Any],
    index: Mapping[str, TaskFile],
    folders: Sequence[Path],
    prepared: Path,
) -> TaskCount:
    own: Mapping[str, Any] = index[name].config if name in index else {}
    known = known_tasks().get(name)
    chance, shots, generated = None, 0, 0
    if own:
        chance, shots = (own.get("metadata") or {}).get("chance"), own.get("num_fewshot") or 0
        if own.get("output_type") == "generate_until":
            generated, chance = (own.get("generation_kwargs") or {}).get("max_gen_toks", GENERATED), None
    elif known:
        chance, shots = known.chance, known.shots
        generated = GENERATED if known.primary.startswith("exact_match") else 0
    sizes = _sizes(name, own, folders, prepared) if own or known else []
    limit, asked = suite.get("limit"), suite.get("num_fewshot")
    counted = sizes or [UNKNOWN]
    items = sum(min(own_items, limit or own_items) for own_items, _ in counted)
    tokens = sum(own_tokens for _, own_tokens in counted) / len(counted)
    options = round(1 / chance) if chance else 1
    if own:
        # ASSUME: half of the options of short forms are one token, which lm-eval reads off one pass of the prompt
        options = -(-options // 2)
    return TaskCount(
        name,
        items,
        options,
        tokens * (1 + (shots if asked is None else asked)),
        generated,
        bool(sizes),
    )


def _sizes(
    name: str, config: Mapping[str, Any], folders: Sequence[Path], prepared: Path
) -> list[tuple[int, float]]:
    """Return items and tokens of a request of all data that a task or group scores; none where one is unknown."""
    files = [Path(one) for one in _data_files(config)]
    if files:
        found = [_measured(files)]
    else:
        scored = benchmarks_of([name], folders, 0)
        found = [
            _measured([prepared / benchmark / f"{split}.jsonl"])
            or PUBLISHED.get(benchmark, PUBLISHED.get(benchmark.partition("-")[0]))
            for benchmark, splits in scored.items()
            for split in splits
        ]
    sizes = [one for one in found if one is not None]
    return sizes if len(sizes) == len(found) else []


def _data_files(config: Mapping[str, Any]) -> list[str]:
    """Return the files of the split that a task scores; of all its splits, where they are not named."""
    files = (config.get("dataset_kwargs") or {}).get("data_files") or []
    if isinstance(files, dict):
        split = config.get("test_split") or config.get("validation_split")
        files = files.get(split, list(files.values())) if split else list(files.values())
    return [files] if isinstance(files, str) else [str(one) for one in files]


def _measured(paths: Sequence[Path]) -> tuple[int, float] | None:
    """Return items, and tokens of a request, of files with one item a line; None where one is missing."""
    if not paths or not all(path.is_file() for path in paths):
        return None
    items = size = 0
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                items, size = items + 1, size + len(line)
    return (items, max(1.0, _SHARE * size / items / _BYTES)) if items else None
