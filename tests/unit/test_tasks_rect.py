"""The tasks of the RECT paper: its prompts word by word, greedy answers scored through lm-eval, on prepared files."""

import json
from typing import Any

import pytest

from collateral.errors import CollateralError
from collateral.evaluation.harness import evaluate, item_rows
from collateral.tasks.benchmarks.catalogue import benchmark
from collateral.tasks.benchmarks.prepared_data import Prepared
from collateral.tasks.registry import benchmarks_of, chance_levels, load_tasks, task_metadata, task_names
from tiny import tiny_model

RECT = [name for name in task_names() if name.startswith("rect-")]
PASSAGE = {"question": "who built it", "answer": ["Ann Lee"]}
ROWS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("gsm8k", "test"): [{"question": "How many?", "answer": "Two and two is four.\n#### 4"}],
    ("rte", "validation"): [{"idx": 0, "sentence1": "It rains.", "sentence2": "It is wet.", "label": 0}],
    ("nq-open", "validation"): [PASSAGE],
    ("nq-open-passages", "validation"): [{**PASSAGE, "passage": "Ann Lee built it."}],
    ("boolq", "validation"): [{"idx": 0, "question": "is it wet", "passage": "It rains.", "label": 1}],
    ("mutual", "validation"): [
        {
            "id": "dev_1",
            "article": "m : hi .",
            "options": ["m : a", "m : b", "m : c", "m : d"],
            "answers": "C",
        }
    ],
    ("samsum", "validation"): [{"id": "1", "dialogue": "A: tea?\nB: yes", "summary": "B wants tea."}],
    ("conll2003", "validation"): [
        {"sentence": "Ann met Bob in Rome", "type": "Person", "entities": ["Ann", "Bob"]},
        {"sentence": "Ann met Bob in Rome", "type": "Location", "entities": ["Rome"]},
    ],
    ("sst2", "validation"): [{"idx": 0, "sentence": "a fine film", "label": 1}],
}
PROMPTS = {
    "rect-gsm8k-hinted": "Q: How many? A: Let's think step by step. Two and two is four.\n Therefore, the answer "
    "(arabic numerals) is:",
    "rect-gsm8k": "Q: How many? A: Let's think step by step.",
    "rect-rte": "It rains. entails the It is wet.. True or False? answer:",
    "rect-nq": "Refer to the passage below and answer the following question. Passage: Ann Lee built it. Question: "
    "who built it",
    "rect-nq-closed": "Answer the following question. Question: who built it Answer:",
    "rect-boolq": "Please answer the given question based on the passage. The answer should be exact 'yes' or 'no'. "
    "passage: It rains. question: is it wet. answer:",
    "rect-mutual": "Q: m : hi . Which choice is correct? Answer Choices: (A)m : a (B)m : b (C)m : c (D)m : d A: "
    "Among A through D, the answer is",
    "rect-samsum": "A: tea?\nB: yes TL;DR:",
    "rect-conll-ner": "Please identify Person Entity from the given text. Text: Ann met Bob in Rome Entity:",
    "rect-sst2": "For each snippet of text, label the sentiment of the text as positive or negative. The answer "
    "should be exact 'positive' or 'negative'. text: a fine film answer:",
}
ANSWERS = {
    "rect-gsm8k-hinted": " 4.",
    "rect-gsm8k": " First 3, then 4.",
    "rect-gsm8k-hinted-released": " 14",
    "rect-rte": " True",
    "rect-nq": " Ann Lee",
    "rect-nq-released": " nobody",
    "rect-nq-closed": " Ann Lee did",
    "rect-boolq": " Yes",
    "rect-mutual": " (C)",
    "rect-samsum": " B wants tea.",
    "rect-conll-ner": " Ann, Rome",
    "rect-sst2": " positive",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    found = {}
    for (name, split), rows in ROWS.items():
        assert all(list(row) == list(benchmark(name).fields) for row in rows), name
        found[name, split] = folder / f"{name}.jsonl"
        found[name, split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


@pytest.fixture(scope="module")
def tasks(data: Prepared) -> dict[str, Any]:
    return load_tasks(RECT, data=data)


def test_every_task_states_what_a_report_needs() -> None:
    assert set(RECT) == set(ANSWERS)
    chances = {name: chance_levels(name) for name in RECT}
    assert {name for name, chance in chances.items() if chance == 0.5} == {
        "rect-rte",
        "rect-boolq",
        "rect-sst2",
    }
    assert chances["rect-mutual"] == 0.25
    for name in RECT:
        about = task_metadata(name)
        assert {"version", "ability", "chance", "prompt_source", "primary", "higher_is_better"} == set(about)
    abilities = {task_metadata(name)["ability"] for name in RECT}
    assert abilities == {task_metadata(name)["ability"] for name in task_names()} - {"english"}


def test_what_they_read_is_known_without_lm_eval() -> None:
    assert benchmarks_of(RECT) == {name: [split] for name, split in sorted(ROWS)}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_is_the_papers(tasks: dict[str, Any], name: str) -> None:
    task = tasks[name]
    docs = task.test_docs() if task.has_test_docs() else task.validation_docs()
    assert task.doc_to_text(next(iter(docs))) == PROMPTS[name]


def _scripted(said: dict[str, str]) -> Any:
    from lm_eval.api.model import LM

    class Scripted(LM):
        """Writes a fixed answer for each task."""

        def loglikelihood(self, requests: Any) -> Any:
            raise AssertionError("these tasks generate")

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests: Any) -> list[str]:
            for request in requests:
                assert request.args[1]["do_sample"] is False
                assert 5 <= request.args[1]["max_gen_toks"] <= 256
            return [said[request.task_name] for request in requests]

    return Scripted()


def _scores(tasks: dict[str, Any], said: dict[str, str]) -> dict[str, float]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    result = simple_evaluate(
        _scripted(said), tasks=list(tasks.values()), task_manager=manager, bootstrap_iters=0
    )
    primary = {name: task_metadata(name)["primary"] for name in tasks}
    for name, metric in primary.items():
        assert result["higher_is_better"][name][metric] is True
    return {name: result["results"][name][f"{metric},none"] for name, metric in primary.items()}


def test_right_answers_score_one(tasks: dict[str, Any]) -> None:
    """But for NER, where one of two persons is named, with a place: TP 2, FP 2, FN 1."""
    scores = _scores(tasks, ANSWERS)
    assert scores.pop("rect-conll-ner") == pytest.approx(4 / 7)
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


def test_no_answer_scores_nothing_but_in_the_released_scoring(tasks: dict[str, Any]) -> None:
    scores = _scores(tasks, dict.fromkeys(RECT, ""))
    assert scores.pop("rect-nq-released") == 1.0  # the answer stands in the passage
    assert set(scores.values()) == {0.0}


def test_they_run_through_a_model_and_give_rows_for_pairing(data: Prepared) -> None:
    result = evaluate(
        tiny_model("llama"), {"tasks": [n for n in RECT if n != "rect-gsm8k"], "batch_size": 2}, [], data=data
    )
    rows = item_rows(result)
    named = set(rows["task"])
    assert named == set(RECT) - {"rect-gsm8k", "rect-nq-released"}  # the latter has no score per item
    ner = rows.filter(task="rect-conll-ner")
    f1 = result["results"]["rect-conll-ner"]["f1,none"]
    assert ner["score"].sum() / ner["weight"].sum() == pytest.approx(f1)


def test_a_task_without_its_data_names_the_benchmark() -> None:
    with pytest.raises(CollateralError, match=r"'rect-nq' needs the benchmark 'nq-open-passages'.*mirror"):
        load_tasks(["rect-nq"])
    with pytest.raises(CollateralError, match=r"benchmark 'conll2003'.*eng\.testa"):
        load_tasks(["rect-conll-ner"], data={})
