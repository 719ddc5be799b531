"""Results of lm-eval's groups in the tidy tables: one row stands for the group, its parts are kept beside."""

from pathlib import Path

from collateral.analysis.tables.collect import read_result_rows
from collateral.io.atomic import write_json
from collateral.tasks.registry import chance_levels, task_metadata

RESULT = {
    "results": {
        "mmlu": {"acc,none": 0.25, "acc_stderr,none": 0.1, "alias": "mmlu", "sample_len": 5},
        "mmlu_stem": {"acc,none": 0.5, "acc_stderr,none": "N/A"},
        "mmlu_anatomy": {"acc,none": 0.5, "acc_stderr,none": 0.2},
        "mmlu_virology": {"acc,none": 0.0, "acc_stderr,none": 0.0},
        "piqa": {"acc,none": 0.75, "acc_stderr,none": 0.1, "acc_norm,none": 0.5, "acc_norm_stderr,none": 0.1},
    },
    "group_subtasks": {"mmlu": ["mmlu_stem", "mmlu_virology"], "mmlu_stem": ["mmlu_anatomy"]},
    "n-samples": {
        "mmlu_anatomy": {"original": 9, "effective": 2},
        "mmlu_virology": {"original": 9, "effective": 3},
        "piqa": {"original": 9, "effective": 4},
    },
    "higher_is_better": {"mmlu": {"acc": True}, "piqa": {"acc": True, "acc_norm": True}},
}


def rows(folder: Path, *names: str) -> dict[tuple[str, str], dict[str, object]]:
    path = folder / "suite.json"
    write_json(path, RESULT)
    about = {name: task_metadata(name) for name in names}
    return {(row["task"], row["metric"]): row for row in read_result_rows(path, about)}


def test_a_group_stands_for_its_tasks(tmp_path: Path) -> None:
    found = rows(tmp_path, "mmlu", "piqa")
    group = found["mmlu", "acc"]
    assert (group["value"], group["stderr"], group["n"]) == (0.25, 0.1, 5)
    assert (group["ability"], group["chance"], group["primary"]) == ("knowledge", 0.25, True)
    assert found["mmlu_stem", "acc"]["n"] == 2
    assert [key for key, row in found.items() if row["primary"]] == [("mmlu", "acc"), ("piqa", "acc")]


def test_a_part_that_the_suite_names_counts_for_itself(tmp_path: Path) -> None:
    found = rows(tmp_path, "mmlu", "mmlu_virology", "piqa")
    assert found["mmlu_virology", "acc"]["primary"] is True
    assert found["mmlu_virology", "acc"]["chance"] == 0.25
    assert found["mmlu_anatomy", "acc"]["primary"] is False


def test_a_metric_read_in_two_ways_is_two_metrics(tmp_path: Path) -> None:
    result = {
        "results": {
            "gsm8k": {
                "exact_match,flexible-extract": 0.5,
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": 0.1,
            },
            "nq_open": {"exact_match,remove_whitespace": 0.5},
        },
        "n-samples": {name: {"effective": 4} for name in ("gsm8k", "nq_open")},
        "higher_is_better": {name: {"exact_match": True} for name in ("gsm8k", "nq_open")},
    }
    path = tmp_path / "suite.json"
    write_json(path, result)
    found = read_result_rows(path, {"gsm8k": task_metadata("gsm8k"), "nq_open": {"primary": "exact_match"}})
    assert [(row["metric"], row["value"], row["primary"]) for row in found] == [
        ("exact_match (flexible-extract)", 0.5, False),
        ("exact_match (strict-match)", 0.25, True),
        ("exact_match (remove_whitespace)", 0.5, True),
    ]
    assert found[1]["stderr"] == 0.1


def test_a_perplexity_beside_an_accuracy_is_shown_too_and_has_no_chance_level(tmp_path) -> None:
    path = tmp_path / "results/unedited/m/abilities/s.json"
    path.parent.mkdir(parents=True)
    numbers = {
        "acc,none": 0.3,
        "acc_stderr,none": 0.1,
        "perplexity,none": 66.4,
        "perplexity_stderr,none": 9.0,
    }
    stored = {
        "results": {"lambada_openai": numbers},
        "n-samples": {"lambada_openai": {"effective": 50}},
        "higher_is_better": {"lambada_openai": {"acc": True, "perplexity": False}},
    }
    write_json(path, stored)
    rows = read_result_rows(path, {"lambada_openai": task_metadata("lambada_openai")})
    assert [(row["metric"], row["primary"], row["chance"]) for row in rows] == [
        ("acc", True, 0.0),
        ("perplexity", True, None),
    ]


def test_tasks_of_lm_eval_have_a_primary_metric_and_a_chance_level() -> None:
    assert task_metadata("hellaswag") == {
        "ability": "commonsense",
        "primary": "acc_norm",
        "higher_is_better": True,
        "chance": 0.25,
    }
    assert chance_levels("winogrande") == 0.5
    assert chance_levels("mmlu_anatomy") == 0.25
    assert chance_levels("wikitext") is None
    assert task_metadata("wikitext")["higher_is_better"] is False
    assert task_metadata("a-task-that-only-lm-eval-knows") == {}
