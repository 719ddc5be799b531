"""Behaviour on the embedded model: edits take, deltas are exact, lm-eval agrees with itself."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from behaviour import embedded_folder

from collateral.data.loaders import embedded
from collateral.deltas.file_format import read_increment, write_increment
from collateral.deltas.increment import rebuild, tensor_sha256
from collateral.deltas.replay import apply_chain
from collateral.editing.method import Prepared
from collateral.editing.methods.grace import Grace
from collateral.editing.methods.rome import Rome
from collateral.editing.prepare.context_templates import sample_templates
from collateral.editing.registry import load_regularizer
from collateral.editing.regularizers.rect import Rect
from collateral.editing.session import Editor, run_link
from collateral.evaluation.efficacy import known_facts, measure_facts
from collateral.evaluation.harness import evaluate, item_rows, write_result
from collateral.models.language_model import load_model
from collateral.pipeline.edit_chain import export_checkpoint

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
MODEL = CONFIG["models"]["smollm2-135m"]
TASKS = ROOT / "src/collateral/tasks"


@pytest.fixture(scope="module")
def folder() -> Path:
    return embedded_folder()


@pytest.fixture
def model(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def known(folder):
    """The first facts, in the order of the table's sequence, that the unedited model knows."""
    facts = embedded.load(ROOT / "resources/embedded")[::9]
    table = known_facts(load_model(folder), facts)
    right = set(table.filter("known")["fact_id"])
    chosen = [fact for fact in facts if fact.fact_id in right]
    assert len(chosen) >= 30
    return list(enumerate(chosen, start=1))


def test_conversion_gives_a_plain_float32_model_that_knows_things(folder, model):
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]) == (30, 576, 49152)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    ids = model.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    best = int(model.network(ids).logits[0, -1].argmax())
    assert model.tokenizer.decode([best]).strip() == "Paris"


def test_rome_edits_take(model, known):
    """At least 10 facts: P(new) > P(true) for 90 %, and most complete greedily with the new answer."""
    rome = Rome(**MODEL["methods"]["rome"])
    templates = sample_templates(model, [[5, 1], [10, 1]], 0)
    name = model.down_name(rome.layer)
    clean = model.matrix(name).clone()
    rows = []
    for number, fact in known[:30:3]:
        rome(model, [fact], Prepared(templates), {}).delta.apply(model)
        asked = replace(fact, paraphrases=(), neighborhood=())  # of the others there is no reference here
        rows += measure_facts(model, [(number, asked)], "now", 8, None)
        model.matrix(name).copy_(clean)
    edited = pl.DataFrame(rows, infer_schema_length=None).filter(kind="reliability")
    assert edited.height == 10
    assert edited["prefers_target"].mean() >= 0.9
    assert edited["generated_match"].sum() >= 6


def test_grace_edits_take_one_after_another_and_nothing_else_moves(model, known):
    """Five edits in one codebook: all generated; every prompt that was not edited keeps its answer."""
    editor = Grace(layer=25, n_iter=20)
    chosen = known[:5]
    before = measure_facts(model, chosen, "before", 4, None)
    reference = {(row["fact_id"], row["kind"], row["probe"]): row for row in before}
    state = {}
    for number, fact in chosen:
        state = editor(model, [fact], Prepared(("{}",), seed=number), state).state
    with editor.attach(model, state):
        rows = measure_facts(model, chosen, "now", 4, reference)
    now = pl.DataFrame(rows, infer_schema_length=None)
    reliability = now.filter(kind="reliability")
    assert reliability["token_accuracy"].to_list() == [1.0] * 5
    assert reliability["generated_match"].all()
    edited = [fact.text() for _, fact in chosen]  # some neighbours are edited themselves
    locality = now.filter(pl.col("kind") == "locality", ~pl.col("prompt").is_in(edited))
    assert locality.height >= 20
    assert locality["token_agreement"].to_list() == [1.0] * locality.height
    assert locality["generated_agreement"].all()


def test_twenty_edits_are_exact_in_any_order(model, known, tmp_path):
    """W_0 and twenty increments, summed forwards and backwards, are the live weights bit for bit."""
    recipe = Editor(Rome(**{**MODEL["methods"]["rome"], "v_num_grad_steps": 2}), Rect(40))
    name = model.down_name(5)
    base = {name: model.network.get_parameter(name).data.clone()}
    chain = []
    for number, fact in known[:20]:
        link = run_link(
            model,
            recipe,
            [(number, fact)],
            Prepared(("{}",)),
            {},
            original={},
            seed=0,
            observe=lambda _: None,
        )
        path = tmp_path / f"{number:04d}.parquet"
        about = {"base_sha256": model.base_sha256, "mode": "additive", "editor": {}}
        write_increment(
            path, link.before, link.after, {**about, "from_edits": number - 1, "to_edits": number}
        )
        chain.append(read_increment(path))
    live = model.network.get_parameter(name).data
    assert not torch.equal(live, base[name])
    for order in (chain, chain[::-1], chain[7:] + chain[:7]):
        assert torch.equal(rebuild(base, order)[name], live)
    assert chain[-1].metadata["parameters"][name]["after"] == tensor_sha256(live)


def test_lm_eval_on_the_exported_checkpoint_gives_identical_numbers(model, known, folder, tmp_path):
    """lm-eval's own command line on the fully saved model against the live model with its deltas."""
    rome = Editor(Rome(**{**MODEL["methods"]["rome"], "v_num_grad_steps": 4}), load_regularizer({}))
    link = run_link(
        model, rome, known[:2], Prepared(("{}",)), {}, original={}, seed=0, observe=lambda _: None
    )
    delta = tmp_path / "delta.parquet"
    about = {
        "base_sha256": model.base_sha256,
        "mode": "additive",
        "from_edits": 0,
        "to_edits": 2,
        "editor": {},
    }
    write_increment(delta, link.before, link.after, about)
    rebuilt = load_model(folder)
    apply_chain(rebuilt, [delta])
    suite = {"tasks": ["embedded-sentiment", "embedded-closed-qa"], "batch_size": 4, "limit": 10}
    result = evaluate(rebuilt, suite, [])
    write_result(result, tmp_path / "suite.json", tmp_path / "suite.items.parquet")
    mine = json.loads((tmp_path / "suite.json").read_text())["results"]

    export_checkpoint(folder, [delta], "float32", tmp_path / "exported")
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "4"),
        *("--model_args", f"pretrained={tmp_path / 'exported'},dtype=float32"),
        *("--tasks", ",".join(suite["tasks"]), "--include_path", str(TASKS), "--limit", "10"),
        *("--output_path", str(tmp_path / "out"), "--log_samples"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=TASKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())["results"]
    for task in suite["tasks"]:
        assert mine[task]["acc,none"] == theirs[task]["acc,none"]
        assert mine[task]["acc_stderr,none"] == theirs[task]["acc_stderr,none"]
    by_task = {}
    for path in (tmp_path / "out").rglob("samples_*.jsonl"):
        task = next(name for name in suite["tasks"] if name in path.name)
        by_task[task] = [json.loads(line) for line in path.read_text().splitlines()]
    for task in suite["tasks"]:
        for own, other in zip(result["samples"][task], by_task[task], strict=True):
            assert own["doc_hash"] == other["doc_hash"]
            likelihoods, expected = ([float(p[0]) for p in one["filtered_resps"]] for one in (own, other))
            assert likelihoods == pytest.approx(
                expected, abs=1e-4
            )  # a context's options in one row: float rounding
    assert item_rows(result).height == 20
