"""Edited model → lm-eval → its own result JSON plus one row per item."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.errors import CollateralError
from collateral.evaluation.lm.nan_scores import mark_broken, watch_generations
from collateral.io.atomic import write_json
from collateral.io.parquet import write_table
from collateral.io.versions import NUMERIC, versions
from collateral.models.language_model import LanguageModel
from collateral.tasks.benchmarks.prepared_data import Prepared
from collateral.tasks.registry import load_tasks
from collateral.tasks.task_yaml import filtered_metric

ANSWER_LENGTH = 200
ITEM_SCHEMA = {
    "task": pl.String,
    "task_hash": pl.String,
    "doc_id": pl.Int32,
    "doc_hash": pl.String,
    "target_hash": pl.String,
    "metric": pl.String,
    "score": pl.Float64,
    "weight": pl.Float64,
    "answer": pl.String,
}


def evaluate(
    model: LanguageModel,
    suite: Mapping[str, Any],
    folders: Sequence[Path],
    adapted: bool = False,
    data: Prepared | None = None,
) -> dict[str, Any]:
    """Return lm-eval's result for one suite, samples included, with a fixed batch size and a fixed seed.

    Args:
        model: the model in the state that is to be measured.
        suite: `tasks`, `batch_size`, and optionally `limit`, `num_fewshot` and `seed`.
        folders: folders with task YAML files, searched before lm-eval's own tasks.
        adapted: the model carries an adapter, which has to know where a prompt ends.
        data: (benchmark, split) → prepared file, for the tasks on public data sets of the catalogue.

    Raises:
        CollateralError: a task has no items, or no result came back.
    """
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    shots, seed = suite.get("num_fewshot"), suite.get("seed", 0)
    tasks = load_tasks(suite["tasks"], folders, data, shots)
    _refuse_empty(tasks.values())
    lm = _language_model(model, suite["batch_size"], adapted)
    broken = watch_generations(lm)
    # It lists the machine's packages and processor by other programs, a second for each job, in every result.
    evaluator.add_env_info = lambda result: result.update(made_with=versions(NUMERIC))
    # No response cache: lm-eval's key lacks the model, so one checkpoint would be served another's answers.
    result = evaluator.simple_evaluate(
        model=lm,
        tasks=list(tasks.values()),
        num_fewshot=shots,
        limit=suite.get("limit"),
        log_samples=True,
        bootstrap_iters=100,
        task_manager=TaskManager(include_defaults=False),
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    if not result or not result.get("results"):
        raise CollateralError("lm-eval returned no result; see the log above it")
    mark_broken(result, broken | getattr(lm, "broken", set()))
    result["task_hashes"] = {task: _task_hash(samples) for task, samples in result["samples"].items()}
    return dict(result)


def _refuse_empty(tasks: Iterable[Any]) -> None:
    for loaded in tasks:
        for task in loaded.get_all_tasks() if hasattr(loaded, "get_all_tasks") else [loaded]:
            if not len(task.eval_docs):
                raise CollateralError(
                    f"task '{task.task_name}' has no items; check its data file and its process_docs"
                )


def _language_model(model: LanguageModel, batch_size: int, adapted: bool) -> Any:
    from collateral.evaluation.lm.adapter_lm import AdaptedLM
    from collateral.evaluation.lm.shared_prefix_lm import SharedPrefixLM

    return (AdaptedLM if adapted else SharedPrefixLM)(model, batch_size)


def _task_hash(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash of a task's items, prompts and targets, as lm-eval's own writer makes it."""
    parts = [sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def item_rows(result: Mapping[str, Any]) -> pl.DataFrame:
    """Return one row per item and metric: task, hashes of task, item and target, score.

    For sums over words or bytes (perplexities) the score is the item's log-likelihood and `weight` its
    number of words or bytes; for a ratio of sums (F1) they are what the item adds to each of the two sums;
    otherwise the weight is 1. A metric whose value is more than two numbers belongs to the items together and
    has no rows. The answer is that of `answer_of`. An item that the model gave no number to has the score NaN and no
    answer, whatever lm-eval made of it.
    """
    rows: list[tuple[Any, ...]] = []
    for task, samples in result["samples"].items():
        task_hash = result["task_hashes"][task]
        for sample in samples:
            answer = None if sample.get("broken") else answer_of(sample["filtered_resps"])
            for metric in sample["metrics"]:
                value = sample[metric]
                if isinstance(value, tuple | list) and len(value) > 2:
                    continue
                score, weight = value if isinstance(value, tuple | list) else (value, 1.0)
                rows.append(
                    (
                        task,
                        task_hash,
                        int(sample["doc_id"]),
                        sample["doc_hash"],
                        sample["target_hash"],
                        filtered_metric(metric, sample.get("filter", "none")),
                        float(score),
                        float(weight),
                        answer,
                    )
                )
    return pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row")


def answer_of(responses: Sequence[Any]) -> str | None:
    """Return the model's answer: the number of the most probable option, or the start of a generated text.

    None where it had neither to choose nor to write.

    Args:
        responses: lm-eval's filtered responses to one item: (log-likelihood, greedy) for each option, or a text.
    """
    first = responses[0] if responses else None
    if isinstance(first, str):
        return first[:ANSWER_LENGTH]
    if len(responses) > 1 and all(isinstance(response, tuple | list) for response in responses):
        return str(max(range(len(responses)), key=lambda option: responses[option][0]))
    return None


def write_result(result: Mapping[str, Any], path: Path, items_path: Path) -> None:
    """Write lm-eval's JSON as it is (samples apart, which are the items) and the items."""
    items = item_rows(result)
    write_table(items, items_path)
    write_json(path, _plain({name: value for name, value in result.items() if name != "samples"}))


def write_not_evaluated(verdict: Mapping[str, Any], path: Path, items_path: Path) -> None:
    """Write a result without scores for a checkpoint of a collapsed chain, and no items.

    Args:
        verdict: `collapsed_at` and `reasons`, as `collapse.verdict` gives them.
        path: written, with the keys of lm-eval's JSON.
        items_path: written.
    """
    write_table(pl.DataFrame(schema=ITEM_SCHEMA), items_path)
    empty: dict[str, Any] = {name: {} for name in ("results", "n-samples", "higher_is_better")}
    write_json(path, {**empty, "not_evaluated": dict(verdict)})


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: numpy scalars as numbers, anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float):
        return value
    return str(value)
