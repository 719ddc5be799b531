"""lm-eval's own tasks on prepared files: same prompts, no network, through HFLM with a tiny random model."""

import json
from pathlib import Path
from typing import Any

import pytest

from collateral.abilities import evaluate
from collateral.benchmarks.catalogue import known_tasks
from collateral.benchmarks.rerouting import Prepared
from collateral.errors import CollateralError
from collateral.taskfolders import benchmarks_of, load_tasks
from tiny import tiny_model

CHOICES = {"text": ["ice", "the sun"], "label": ["A", "B"]}
ROWS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("lambada", "test"): [{"text": "The sea is blue and the sky is blue"}, {"text": "You think I think"}],
    ("piqa", "validation"): [
        {"goal": "Dry a cup.", "sol1": "Use a towel.", "sol2": "Use a stone.", "label": 0},
        {"goal": "Cut paper.", "sol1": "Use soup.", "sol2": "Use scissors.", "label": 1},
    ],
    ("arc-easy", "test"): [{"id": "1", "question": "Which is hot?", "choices": CHOICES, "answerKey": "B"}],
    ("hellaswag", "validation"): [
        {
            "ind": 0,
            "activity_label": "Ski",
            "ctx_a": "A man waits.",
            "ctx_b": "the other",
            "endings": ["sings.", "jumps.", "runs.", "sits."],
            "label": "2",
        }
    ],
    ("wikitext", "test"): [
        {"page": " = One = \n \n The sea is blue . \n"},
        {"page": " = Two = \n \n You think . \n"},
    ],
}
NAMES = ["lambada_openai", "piqa", "arc_easy", "hellaswag", "wikitext"]


def written(folder: Path) -> dict[tuple[str, str], Path]:
    data = {}
    for (name, split), rows in ROWS.items():
        data[name, split] = folder / f"{name}-{split}.jsonl"
        data[name, split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return written(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def result(data: Prepared) -> dict[str, Any]:
    suite = {"tasks": NAMES, "batch_size": 2, "num_fewshot": 0}
    return evaluate(tiny_model("llama"), suite, [], data=data)


def test_the_tasks_of_lm_eval_run_on_prepared_files(result: dict[str, Any]) -> None:
    counts = {name: result["n-samples"][name]["effective"] for name in NAMES}
    assert counts == {"lambada_openai": 2, "piqa": 2, "arc_easy": 1, "hellaswag": 1, "wikitext": 2}
    for name in NAMES:
        task = known_tasks()[name]
        assert f"{task.primary},none" in result["results"][name]
        assert result["higher_is_better"][name][task.primary] is task.higher_is_better


def test_their_prompts_are_those_of_lm_eval(result: dict[str, Any]) -> None:
    def first(name: str) -> list[str]:
        return [" | ".join(pair) for pair in result["samples"][name][0]["arguments"]]

    assert first("piqa") == [
        "Question: Dry a cup.\nAnswer: |  Use a towel.",
        "Question: Dry a cup.\nAnswer: |  Use a stone.",
    ]
    assert first("hellaswag")[1] == "Ski: A man waits. The other |  jumps."
    assert first("lambada_openai") == ["The sea is blue and the sky is |  blue"]
    assert result["samples"]["arc_easy"][0]["target"] == 1
    assert first("wikitext") == [" = One =\n\nThe sea is blue.\n"]


def test_a_split_that_was_not_prepared_is_named_with_its_file(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(CollateralError, match=r"'piqa', split 'validation'.*mirror"):
        load_tasks(["piqa"], data={})
    with pytest.raises(CollateralError, match=r"gone\.jsonl is not there"):
        load_tasks(["piqa"], data={("piqa", "validation"): tmp_path / "gone.jsonl"})
    with pytest.raises(CollateralError, match="'hellaswag', split 'train'"):
        load_tasks(["hellaswag"], data=data, num_fewshot=2)


def test_a_task_of_a_user_folder_reads_the_same_files(data: Prepared, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(
        "task: short\ndataset_path: baber/piqa\nvalidation_split: validation\noutput_type: multiple_choice\n"
        "doc_to_text: '{{goal}}'\ndoc_to_choice: '{{[sol1, sol2]}}'\ndoc_to_target: label\n"
    )
    assert benchmarks_of(["short"], [tmp_path]) == {"piqa": ["validation"]}
    (task,) = load_tasks(["short"], [tmp_path], data).values()
    assert [doc["goal"] for doc in task.validation_docs()] == ["Dry a cup.", "Cut paper."]


def test_few_shot_examples_ask_for_their_split() -> None:
    assert benchmarks_of(["piqa", "hellaswag"], num_fewshot=3) == {
        "hellaswag": ["train", "validation"],
        "piqa": ["train", "validation"],
    }
    assert benchmarks_of(["lambada_openai"], num_fewshot=3) == {"lambada": ["test"]}


def test_a_name_that_only_lm_eval_knows_is_looked_up_there() -> None:
    assert benchmarks_of(["arc_challenge_chat"], num_fewshot=0) == {"arc-challenge": ["test"]}
    with pytest.raises(CollateralError, match="hellaswag"):
        benchmarks_of(["helaswag"])


def test_what_is_known_of_the_tasks_agrees_with_lm_eval() -> None:
    from lm_eval.tasks import TaskManager

    from collateral.benchmarks.rerouting import needs, needs_of_known

    index = TaskManager().task_index
    for name, known in known_tasks().items():
        config = index[name].cfg
        metrics = {metric["metric"]: metric.get("higher_is_better") for metric in config["metric_list"]}
        assert known.primary in metrics, name
        assert metrics[known.primary] in (known.higher_is_better, None), name
        for shots in (None, 0, 5):
            assert needs_of_known(name, shots) == needs(config, shots), (name, shots)
