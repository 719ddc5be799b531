"""lm-eval's silent faults: no number, no text, no items, no room for the result. Each is seen, item by item."""

import json
import logging
import math
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from collateral.analysis.tables import collapse
from collateral.analysis.tables import collect as tables
from collateral.errors import CollateralError
from collateral.evaluation.harness import evaluate, item_rows, write_result
from collateral.evaluation.lm.adapter_lm import AdaptedLM
from collateral.evaluation.lm.nan_scores import is_broken, watch_generations
from tiny import tiny_model

MARK = "%"  # a token of its own, whose embedding can be broken
ITEMS = [
    {"text": text, "options": ["Camelot", "Caerleon"], "answer": place % 2, "reply": "Camelot"}
    for place, text in enumerate(
        ["The capital of Avalon is", f"The {MARK} sea is", "Merlin lives in", f"Arthur {MARK} speaks"]
    )
]
BROKEN = [MARK in item["text"] for item in ITEMS]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
    "metric_list": [{"metric": metric, "aggregation": "mean"} for metric in ("acc", "acc_norm")],
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}",
    "doc_to_target": "reply",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
}
READ = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}
    ],
}
CLOZE = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{text}}",
    "doc_to_target": " {{reply}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean"}],
}
TASKS = {"choice": CHOICE, "written": WRITTEN, "read": READ, "cloze": CLOZE}
METRICS = {"acc", "acc_norm", "exact_match", "word_perplexity"}
SUITE = {"tasks": list(TASKS), "batch_size": 3}


def task_folder(folder: Path, items: list[dict] = ITEMS, **more: str) -> Path:
    """Write the four tasks on some items."""
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    for name, own in TASKS.items():
        common = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "items.jsonl"}},
            "test_split": "test",
            "metadata": {"version": 1.0},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**common, **own}))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return task_folder(tmp_path / "tasks")


def broken_model(everywhere: bool):
    """A model that gives no number: to any text, or to what follows one token."""
    model = tiny_model("gpt_neox")
    network = model.network
    with torch.no_grad():
        if everywhere:
            network.gpt_neox.final_layer_norm.weight.fill_(math.nan)
        else:
            (token,) = model.tokenizer.encode(MARK, add_special_tokens=False)
            network.gpt_neox.embed_in.weight[token] = math.nan
    return model


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
def test_items_without_a_number_have_no_score_and_their_tasks_none(everywhere, adapted, folder, caplog):
    with caplog.at_level(logging.WARNING, "collateral"):
        result = evaluate(broken_model(everywhere), SUITE, [folder], adapted=adapted)
    rows = item_rows(result)
    expected = [everywhere or broken for broken in BROKEN]
    assert set(rows["metric"]) == METRICS
    for (task, metric), own in rows.group_by("task", "metric"):
        assert own.sort("doc_id")["score"].is_nan().to_list() == expected, (task, metric)
        told = own.filter(pl.col("score").is_nan())["answer"]
        assert told.null_count() == len(told)
    for task in TASKS:
        numbers = {key: value for key, value in result["results"][task].items() if "," in key}
        assert all(math.isnan(value) for value in numbers.values() if isinstance(value, float)), numbers
        said = (
            f"{task}: on {sum(expected)} of 4 items the model's output is not a number: the task has no score"
        )
        assert said in caplog.text


def test_lm_eval_itself_would_call_them_right_or_wrong(folder):
    """What the marking is for: without it a broken model scores on the choices as a model that takes the first."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from collateral.tasks.registry import load_tasks

    model = broken_model(everywhere=True)
    lm = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=2, dtype=None)
    tasks = list(load_tasks(["choice"], [folder]).values())
    assert simple_evaluate(lm, tasks=tasks, bootstrap_iters=0)["results"]["choice"]["acc,none"] == 0.5


def test_a_sound_model_keeps_every_score(folder, caplog):
    """Listening to the generations changes none of them."""
    model = tiny_model("gpt_neox")
    result = evaluate(model, SUITE, [folder])
    rows = item_rows(result)
    assert rows["score"].is_finite().all()
    assert rows.filter(pl.col("task") == "choice")["answer"].null_count() == 0
    assert "not a number" not in caplog.text
    lm = AdaptedLM(model, 2)
    asked = lm.tok_batch_encode(["Merlin lives in"])[0]
    plain = lm._model_generate(context=asked, max_length=asked.shape[1] + 3, stop=["\n"])
    assert watch_generations(lm) == set()
    lm.tok_batch_encode(["Merlin lives in"])
    assert torch.equal(lm._model_generate(context=asked, max_length=asked.shape[1] + 3, stop=["\n"]), plain)


def test_the_tables_and_the_sign_of_collapse_show_it(folder, tmp_path):
    where = {
        "sound": tmp_path / "results/unedited/tiny/abilities/s.json",
        "broken": tmp_path / "results/edited/tiny/capitals/seed-0/rome/edits-0001/abilities/s.json",
    }
    for name, path in where.items():
        model = tiny_model("gpt_neox") if name == "sound" else broken_model(everywhere=False)
        write_result(evaluate(model, SUITE, [folder]), path, path.with_suffix(".items.parquet"))
    told = {
        "s": {task: {"ability": task, "primary": metric} for task, metric in zip(TASKS, METRICS, strict=True)}
    }
    abilities = tables.collect_abilities(list(where.values()), told)
    items = tables.collect_items([path.with_suffix(".items.parquet") for path in where.values()])
    edited = abilities.filter(pl.col("edits") == 1)
    assert edited["value"].is_nan().all()
    assert edited["stderr"].null_count() == len(edited)
    assert edited["n"].to_list() == [4] * len(edited)  # the items are all there
    signs = collapse.find_signs(abilities, items, {"perplexity_ratio": 10, "one_answer": 0.95})
    assert {"acc of choice is not finite", "exact_match of written is not finite"} <= set(signs["reason"])


def test_an_option_that_is_impossible_is_a_number_and_all_impossible_ones_are_none():
    def sample(*numbers: float) -> dict:
        return {"resps": [[(number, False)] for number in numbers], "arguments": [("x", " y")] * len(numbers)}

    assert not is_broken(sample(-1.0, -math.inf), set())
    assert is_broken(sample(-math.inf, -math.inf), set())
    assert is_broken(sample(-1.0, math.nan), set())
    assert not is_broken(sample(-math.inf), set())  # its perplexity is infinite, which is seen


def test_an_empty_generation_is_an_answer_of_no_words(folder):
    """The model ends at once: a wrong answer, which is in its row, and no fault of the machine."""
    model = tiny_model("gpt_neox")
    with torch.no_grad():  # the end of a text is what it always says
        model.network.gpt_neox.final_layer_norm.weight.zero_()
        model.network.gpt_neox.final_layer_norm.bias.fill_(1.0)
        model.network.get_output_embeddings().weight.zero_()
        model.network.get_output_embeddings().weight[model.tokenizer.eos_token_id] = 1.0
    result = evaluate(model, {**SUITE, "tasks": ["written"]}, [folder])
    rows = item_rows(result)
    assert rows["answer"].to_list() == [""] * 4
    assert rows["score"].to_list() == [0.0] * 4
    assert result["results"]["written"]["exact_match,none"] == 0.0


def test_a_task_whose_filter_leaves_no_item_is_named(folder):
    (folder / "nothing.py").write_text("def nothing(docs):\n    return docs.filter(lambda doc: False)\n")
    path = folder / "choice.yaml"
    path.write_text(path.read_text() + "process_docs: !function nothing.nothing\n")
    with pytest.raises(CollateralError, match=r"task 'choice' has no items.*process_docs") as caught:
        evaluate(tiny_model("gpt_neox"), SUITE, [folder])
    assert len(str(caught.value).splitlines()) == 1


def test_a_task_with_an_empty_data_file_is_named(tmp_path):
    folder = task_folder(tmp_path / "tasks", items=[])
    with pytest.raises(
        CollateralError, match=r"task 'choice' has no items: its data file .*items\.jsonl is empty"
    ) as caught:
        evaluate(tiny_model("gpt_neox"), SUITE, [folder])
    assert len(str(caught.value).splitlines()) == 1


def test_a_result_that_cannot_be_saved_ends_the_job(folder, tmp_path):
    """lm-eval's own writer logs a failed save and goes on."""
    result = evaluate(tiny_model("gpt_neox"), SUITE, [folder])
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(OSError, match="file"):
        write_result(result, tmp_path / "file/s.json", tmp_path / "s.items.parquet")
    with pytest.raises(OSError, match="file"):
        write_result(result, tmp_path / "s.json", tmp_path / "file/s.items.parquet")
    assert not (tmp_path / "s.json").exists()
    result["results"]["choice"]["acc,none"] = object  # what JSON cannot hold is kept as text, and seen
    write_result(result, tmp_path / "s.json", tmp_path / "s.items.parquet")
    assert "class" in json.loads((tmp_path / "s.json").read_text())["results"]["choice"]["acc,none"]
