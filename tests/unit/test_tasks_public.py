"""lm-eval's own tasks on prepared files: same prompts, no network, through HFLM with a tiny random model."""

import json
from pathlib import Path
from typing import Any

import pytest

from collateral.errors import CollateralError
from collateral.evaluation.harness import evaluate, item_rows
from collateral.tasks.benchmarks.catalogue import known_tasks
from collateral.tasks.benchmarks.prepared_data import Prepared
from collateral.tasks.registry import benchmarks_of, load_tasks
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
    ("winogrande", "validation"): [
        {"sentence": "Ann met Eve, so _ smiled.", "option1": "Ann", "option2": "Eve", "answer": "2"}
    ],
    ("truthfulqa", "validation"): [
        {
            "question": "Is it?",
            "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["No", "Not so", "Yes"], "labels": [1, 1, 0]},
        }
    ],
    ("mmlu-anatomy", "test"): [{"question": "Where?", "choices": ["a", "b", "c", "d"], "answer": 3}],
    ("mmlu-anatomy", "dev"): [{"question": "Who?", "choices": ["e", "f", "g", "h"], "answer": 0}],
    ("gsm8k", "test"): [{"question": "How many?", "answer": "Two and two.\n#### 4"}],
    ("sciq", "test"): [
        {
            "question": "Which is hot?",
            "distractor1": "ice",
            "distractor2": "snow",
            "distractor3": "rain",
            "correct_answer": "the sun",
            "support": "The sun is hot.",
        }
    ],
    ("wikitext", "test"): [
        {"page": " = One = \n \n The sea is blue . \n"},
        {"page": " = Two = \n \n You think . \n"},
    ],
}
COUNTS = {
    "lambada_openai": 2,
    "piqa": 2,
    "arc_easy": 1,
    "hellaswag": 1,
    "winogrande": 1,
    "truthfulqa_mc1": 1,
    "truthfulqa_mc2": 1,
    "mmlu_anatomy": 1,
    "sciq": 1,
    "wikitext": 2,
}


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
    suite = {"tasks": list(COUNTS), "batch_size": 2, "num_fewshot": 0}
    return evaluate(tiny_model("llama"), suite, [], data=data)


def test_the_tasks_of_lm_eval_run_on_prepared_files(result: dict[str, Any]) -> None:
    assert {name: result["n-samples"][name]["effective"] for name in COUNTS} == COUNTS
    for name in COUNTS:
        task = known_tasks()[name]
        assert f"{task.primary},none" in result["results"][name]
        assert result["higher_is_better"][name][task.primary] is task.higher_is_better
        assert all(f"{metric},none" in result["results"][name] for metric in task.also)


def test_their_prompts_are_those_of_lm_eval(result: dict[str, Any]) -> None:
    def first(name: str) -> list[str]:
        return [" | ".join(pair) for pair in result["samples"][name][0]["arguments"]]

    assert first("piqa") == [
        "Question: Dry a cup.\nAnswer: |  Use a towel.",
        "Question: Dry a cup.\nAnswer: |  Use a stone.",
    ]
    assert first("hellaswag")[1] == "Ski: A man waits. The other |  jumps."
    assert first("winogrande") == ["Ann met Eve, so Ann |  smiled.", "Ann met Eve, so Eve |  smiled."]
    assert first("sciq")[3] == "The sun is hot.\nQuestion: Which is hot?\nAnswer: |  the sun"
    assert first("truthfulqa_mc2")[1].endswith("Q: Is it?\nA: |  Not so")
    assert first("lambada_openai") == ["The sea is blue and the sky is |  blue"]
    assert result["samples"]["arc_easy"][0]["target"] == 1
    assert first("wikitext") == [" = One =\n\nThe sea is blue.\n"]


def test_examples_come_from_their_own_split(data: Prepared) -> None:
    (task,) = load_tasks(["mmlu_anatomy"], data=data, num_fewshot=1).values()
    (doc,) = task.test_docs()
    prompt = task.fewshot_context(doc, num_fewshot=1)
    assert "Who?\nA. e\nB. f\nC. g\nD. h\nAnswer: A\n\nWhere?\nA. a" in prompt


def test_a_group_of_lm_eval_reads_prepared_files(tmp_path: Path) -> None:
    row = json.dumps({"question": "Where?", "choices": ["a", "b", "c", "d"], "answer": 3})
    data = {}
    for name in known_tasks()["mmlu"].members:
        need = (known_tasks()[name].benchmark or "", "test")
        data[need] = tmp_path / f"{need[0]}.jsonl"
        data[need].write_text(row + "\n")
    assert benchmarks_of(["mmlu"], num_fewshot=0) == {name: ["test"] for name, _ in sorted(data)}
    (group,) = load_tasks(["mmlu"], data=data, num_fewshot=0).values()
    tasks = group.get_all_tasks()
    assert len(tasks) == 57
    assert {task.DATASET_PATH for task in tasks} == {"json"}
    missing = {need: path for need, path in data.items() if need[0] != "mmlu-virology"}
    with pytest.raises(CollateralError, match="'mmlu_virology' needs the benchmark 'mmlu-virology'"):
        load_tasks(["mmlu"], data=missing, num_fewshot=0)


def test_answers_read_in_two_ways_are_two_rows_an_item(data: Prepared) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Solver(LM):
        """Writes the number without the mark that the strict reading wants."""

        def loglikelihood(self, requests: Any) -> Any:
            raise AssertionError("this task generates")

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests: Any) -> list[str]:
            return [" It is 4." for _ in requests]

    tasks = load_tasks(["gsm8k"], data=data, num_fewshot=0)
    manager = TaskManager(include_defaults=False)
    result = simple_evaluate(
        Solver(), tasks=list(tasks.values()), num_fewshot=0, task_manager=manager, bootstrap_iters=0
    )
    rows = item_rows({**result, "task_hashes": {"gsm8k": "x"}})
    assert dict(rows.select("metric", "score").iter_rows()) == {
        "exact_match (strict-match)": 0.0,
        "exact_match (flexible-extract)": 1.0,
    }


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

    from collateral.tasks.benchmarks.prepared_data import leaves, needs, needs_of_known

    manager = TaskManager()
    for name, known in known_tasks().items():
        config = manager.task_index[name].cfg
        if known.benchmark is None:
            assert sorted(known.members) == sorted(leaves(manager, name))
            continue
        metrics = {one["metric"]: one.get("higher_is_better") for one in config["metric_list"]}
        metric, _, filtered = known.primary.removesuffix(")").partition(" (")
        assert metrics[metric] in (known.higher_is_better, None), name
        filters = [one["name"] for one in config.get("filter_list") or [{"name": "none"}]]
        assert filtered in filters if filtered else filters == ["none"], name
        for shots in (None, 0, 5):
            assert needs_of_known(name, shots) == (needs(config, shots),), (name, shots)
