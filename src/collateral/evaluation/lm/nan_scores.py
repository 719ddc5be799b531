"""Items whose scores are not numbers: identified one by one, and never averaged as wrong answers.

Among log-likelihoods that are not numbers, lm-eval takes the first option for the model's answer, and a generation
from such logits is text like any other; both become a 0 or a 1. Here their scores are NaN, and so is every mean over
them: a model that is broken on some items has no score on the task.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

NAN = float("nan")


def watch_generations(model: Any) -> set[str]:
    """Return a set that fills with the prompts whose generation met logits that are not numbers.

    Args:
        model: lm-eval's view of a model; its encoding of a batch of prompts and its generation are listened to.
    """
    from transformers import LogitsProcessorList

    broken: set[str] = set()
    prompts: list[str] = []
    encode: Callable[..., Any] = model.tok_batch_encode
    generate: Callable[..., Any] = model._model_generate

    def encoded(strings: Sequence[str], *args: Any, **options: Any) -> Any:
        prompts[:] = strings
        return encode(strings, *args, **options)

    def generated(*args: Any, **options: Any) -> Any:
        rows = list(prompts)

        def listen(_: Any, scores: Any) -> Any:
            broken.update(rows[row] for row in scores.isnan().any(-1).nonzero()[:, 0].tolist())
            return scores

        return generate(*args, **options, logits_processor=LogitsProcessorList([listen]))

    model.tok_batch_encode, model._model_generate = encoded, generated
    return broken


def mark_broken(result: Mapping[str, Any], prompts: Iterable[str] = ()) -> None:
    """Set the scores of broken items to NaN, and those of their tasks and of the groups above; log how many.

    Args:
        result: lm-eval's, samples included; changed in place. A broken sample has the key `broken`.
        prompts: whose generations are broken.
    """
    broken_prompts, broken_tasks = set(prompts), set()
    for task, samples in result["samples"].items():
        broken = {sample["doc_id"] for sample in samples if is_broken(sample, broken_prompts)}
        for sample in samples:
            if sample["doc_id"] in broken:
                sample["broken"] = True
                sample.update({metric: _remove_number(sample[metric]) for metric in sample["metrics"]})
        if broken:
            broken_tasks.add(task)
            text = "%s: on %d of %d items the model's output is not a number: the task has no score"
            log.warning(text, task, len(broken), len({sample["doc_id"] for sample in samples}))
    groups = result.get("group_subtasks", {})
    for section in ("results", "groups"):
        for name, numbers in result.get(section, {}).items():
            if broken_tasks & {name, *_find_subtasks(name, groups)}:
                numbers.update({key: NAN for key, value in numbers.items() if _is_score(key, value)})


def is_broken(sample: Mapping[str, Any], prompts: set[str]) -> bool:
    """Return whether a model gave an item no number, or none to choose by: NaN, or every option impossible."""
    scored = [answer for answers in sample["resps"] for answer in answers if not isinstance(answer, str)]
    numbers = [float(score[0] if isinstance(score, tuple | list) else score) for score in scored]
    if any(map(math.isnan, numbers)) or (len(numbers) > 1 and all(number == -math.inf for number in numbers)):
        return True
    return any(asked and asked[0] in prompts for asked in sample["arguments"])


def _remove_number(value: Any) -> Any:
    """Return a metric's value without its number: a pair keeps its weight, and what is more belongs to all items."""
    if isinstance(value, tuple | list):
        return (NAN, value[1]) if len(value) == 2 else value
    return NAN


def _is_score(key: str, value: Any) -> bool:
    return "," in key and isinstance(value, int | float) and not isinstance(value, bool)


def _find_subtasks(name: str, groups: Mapping[str, Sequence[str]]) -> set[str]:
    """Return all tasks below a group."""
    return {task for member in groups.get(name, ()) for task in (member, *_find_subtasks(member, groups))}
