"""A model spread over GPUs gives the bits of a model on one GPU; the GPUs are virtual, see `virtual_gpus`."""

from pathlib import Path

import polars as pl
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from collateral.deltas.update import dense, snapshot
from collateral.editing.checkpoint import at_checkpoint
from collateral.editing.prepare.context_templates import sample_templates
from collateral.editing.prepare.second_moments import measure_moments
from collateral.editing.registry import (
    is_flagged,
    load_method,
    load_regularizer,
    method_names,
    regularizer_names,
)
from collateral.editing.session import Editor, run_link
from collateral.editing.train_hypernetwork import Training
from collateral.evaluation.drift import measure_drift
from collateral.evaluation.efficacy import known_facts, measure_facts
from collateral.evaluation.harness import evaluate, item_rows
from collateral.evaluation.lm.shared_prefix_lm import SharedPrefixLM
from collateral.models.device_map import iterate_parts
from collateral.models.language_model import LanguageModel, load_model, wrap
from collateral.pipeline.edit_chain import LinkInputs, edit_link
from golden.test_contract import moments as moments  # a fixture
from golden.test_contract import prepared_for, settings_of
from tiny import FAMILIES, WORDS, tiny_network, tiny_tokenizer
from unit.test_adapter_lm import generation_requests
from unit.test_chain import ROME, Project
from virtual_gpus import VirtualGpus, let_models_load, put_on_gpus

pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")


@pytest.fixture
def gpus(monkeypatch):
    """Six GPUs, of which the largest part of a tiny model fills one."""
    let_models_load(monkeypatch, [100_000] * 6)
    with VirtualGpus():
        yield


def one_gpu(network):
    """Everything on GPU 0."""
    return {"": 0}


def gpu_each(network):
    """The embeddings, every layer, the norm and the head on a GPU of its own: every way is a crossing."""
    return {name: gpu for gpu, (names, _) in enumerate(iterate_parts(network)) for name in names}


def model_on(family, placed, dtype=torch.float32) -> LanguageModel:
    network = tiny_network(family, dtype)
    put_on_gpus(network, placed(network))
    return wrap(network, tiny_tokenizer(), f"tiny-{family}")


def both(family, dtype=torch.float32):
    return model_on(family, one_gpu, dtype), model_on(family, gpu_each, dtype)


def method_of(method, **changes):
    settings = settings_of(method) | ({"n_iter": 3} if method == "grace" else {}) | changes
    return load_method(method, settings)


def same_tensors(left, right):
    assert set(left) == set(right)
    for name in left:
        assert torch.equal(left[name].cpu(), right[name].cpu()), name


VARIANTS = [(name, {}) for name in method_names()] + [
    ("ft", {"objective": "prompt_last", "biases": True}),
    ("kn", {"variant": "released"}),
    ("grace", {"site": "block", "replacement": "all"}),
    ("grace", {"site": "input", "replacement": "prompt"}),
    ("memit", {"sequential": True}),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "changes"), VARIANTS)
def test_an_edit_has_the_same_bits_on_many_gpus_as_on_one(
    gpus, method, changes, family, facts, moments, tmp_path
):
    """Each update lies on its matrix's GPU, and the call leaves the model as it was."""
    count = 2 if is_flagged(method, "batches") else 1
    edits = []
    for model in both(family):
        editor = method_of(method, **changes)
        before = snapshot(model, dict(model.network.named_parameters()))
        edit = editor(model, facts[:count], prepared_for(method, model, facts, moments, tmp_path), {})
        same_tensors(before, dict(model.network.named_parameters()))
        for name, update in edit.delta.updates.items():
            assert dense(update).device == model.matrix(name).device
        edits.append(edit)
    one, many = edits
    same_tensors(*({name: dense(update) for name, update in edit.delta.updates.items()} for edit in edits))
    same_tensors(one.state, many.state)
    assert (one.record, one.per_fact) == (many.record, many.per_fact)


@pytest.mark.parametrize("name", regularizer_names())
@pytest.mark.parametrize("method", ["memit", "mend", "kn", "d4s", "placebo"])
def test_a_chain_has_the_same_bits_on_many_gpus(gpus, method, name, facts, moments, tmp_path):
    """Two operations with each regulariser, the state carried, W_0 read where it must be."""
    links = []
    for model in both("llama"):
        editor = method_of(method)
        original = snapshot(model, editor.parameters(model))
        recipe = Editor(
            editor,
            load_regularizer({"name": name, "keep": 40.0, "reference": "original", "within_layers": True}),
        )
        given = prepared_for(method, model, facts, moments, tmp_path)
        numbered = list(enumerate(facts[:2], start=1))
        links.append(
            run_link(model, recipe, numbered, given, {}, original=original, seed=0, observe=lambda _: None)
        )
    same_tensors(links[0].after, links[1].after)
    same_tensors(links[0].state, links[1].state)
    wanted = [{k: v for k, v in row.items() if k != "fact"} for row in links[0].records]
    assert wanted == [{k: v for k, v in row.items() if k != "fact"} for row in links[1].records]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_probes_contexts_and_moments_have_the_same_numbers(gpus, family, dtype, facts):
    """Teacher-forced scores, free generation, known facts, sampled contexts, second moments of every layer."""
    one, many = both(family, dtype)
    numbered = list(enumerate(facts[:3], start=1))
    assert measure_facts(one, numbered, "before", 4) == measure_facts(many, numbered, "before", 4)
    assert known_facts(one, facts).equals(known_facts(many, facts))
    assert sample_templates(one, [(5, 2)], 0) == sample_templates(many, [(5, 2)], 0)
    left, right = (measure_moments(model, range(one.layers), [WORDS] * 4, 200, 8) for model in (one, many))
    for layer in range(one.layers):
        assert right[layer].matrix.device == many.matrix(many.down_name(layer)).device
        assert torch.equal(left[layer].matrix.cpu(), right[layer].matrix.cpu())


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_lm_eval_has_the_same_items(gpus, family):
    """Multiple choice and perplexity, as HFLM scores a network that is on several GPUs."""
    suite = {"tasks": ["embedded-english", "embedded-summarization"], "batch_size": 4, "limit": 3}
    tables = [item_rows(evaluate(model, suite, [])) for model in both(family)]
    assert len(tables[0]) >= 6
    assert tables[0].equals(tables[1])


def test_written_answers_have_the_same_words(gpus):
    """Generation as lm-eval does it and as the package does: left padding, a cache that lies on all GPUs."""
    written = [
        lm.generate_until(generation_requests(), disable_tqdm=True)
        for model in both("llama")
        for lm in (
            HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=4),
            SharedPrefixLM(model, batch_size=4),
        )
    ]
    assert any(written[0])
    assert written[0] == written[1] == written[2] == written[3]


def test_lm_eval_of_an_adapter_has_the_same_items(gpus, facts):
    suite = {"tasks": ["embedded-english"], "batch_size": 4, "limit": 3}
    editor, tables = method_of("grace", site="block", epsilon=50.0), []
    for model in both("llama"):
        edit = editor(model, facts[:1], prepared_for("grace", model, facts, {}, Path()), {})
        with editor.attach(model, edit.state):
            tables.append(item_rows(evaluate(model, suite, [], adapted=True)))
    assert tables[0].equals(tables[1])


def test_a_hypernetwork_learns_the_same(gpus, facts, tmp_path):
    settings = {"layers": [1, 2], "training_facts": 3, "rank": 2, "max_steps": 3, "validate_every": 1}
    for name, model in zip(("one", "many"), both("llama"), strict=True):
        (tmp_path / name).mkdir()
        archive = tmp_path / name / "net.safetensors"
        Training(model, facts[:3], load_method("mend", settings), 0, archive, "code").run()
    one, many = (tmp_path / name / "net.safetensors" for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jobs_on_all_gpus_write_the_bytes_of_jobs_on_one(monkeypatch, facts, tmp_path, dtype):
    """Load, edit, write a delta, rebuild the checkpoint from it and measure drift: the files are equal."""
    project = Project(tmp_path, facts, dtype=dtype)
    found = {}
    let_models_load(monkeypatch, [100_000] * 6)
    with VirtualGpus():
        for device in ("cuda:0", "cuda:all"):
            out = tmp_path / device.replace(":", "-") / "0002"
            files = LinkInputs(
                model=project.model,
                facts=project.facts,
                sequence=project.sequence,
                known=None,
                contexts=project.contexts,
                moments=None,
                hypernetwork=None,
                reference=[project.reference],
                like=(),
            )
            edit_link(
                files,
                recipe=ROME,
                start=0,
                edits=2,
                seed=0,
                new_tokens=3,
                dtype=dtype,
                device=device,
                delta=out / "delta.parquet",
                state=out / "state.safetensors",
                records=out / "edits.parquet",
                after_edit=out / "after-edit.parquet",
            )
            model = load_model(project.model, dtype, device)
            assert {one.dtype for one in model.network.parameters()} == {getattr(torch, dtype)}
            measure_drift(model, [out / "delta.parquet"], [WORDS] * 2, 48, 24, out / "drift.parquet")
            found[device] = out
        assert len(set(model.network.hf_device_map.values())) > 3
    for name in (
        "delta.parquet",
        "state.safetensors",
        "edits.parquet",
        "after-edit.parquet",
        "drift.parquet",
    ):
        one, many = (folder / name for folder in found.values())
        if name.endswith("parquet"):
            assert pl.read_parquet(one).equals(pl.read_parquet(many), null_equal=True), name
        assert one.read_bytes() == many.read_bytes(), name


def test_a_checkpoint_is_rebuilt_on_many_gpus(monkeypatch, facts, tmp_path):
    project = Project(tmp_path, facts)
    recipe = {**ROME, "method": "ft", "settings": {"layer": 3, "num_steps": 2}}
    deltas = [project.link("chain", 0, 1, recipe), project.link("chain", 1, 3, recipe)]
    name = "model.layers.3.mlp.down_proj.weight"
    plain = load_model(project.model)
    with at_checkpoint(plain, deltas):
        pass
    let_models_load(monkeypatch, [100_000] * 6)
    with VirtualGpus():
        model = load_model(project.model, "float32", "cuda:all")
        unedited = model.matrix(name).clone()
        with at_checkpoint(model, deltas):
            assert model.matrix(name).device != model.device
            assert not torch.equal(model.matrix(name), unedited)
            assert torch.equal(model.matrix(name).cpu(), plain.matrix(name))


def test_virtual_gpus_mind_what_cuda_minds():
    """Otherwise the tests above would prove nothing."""
    with VirtualGpus():
        first, second = (torch.ones(2, 2, device=f"cuda:{i}") for i in (0, 1))
        index, main = torch.tensor([0], device="cuda:1"), torch.ones(2, 2)
        for mixed in (
            lambda: first + second,
            lambda: first @ main,
            lambda: torch.cat([first, second]),
            lambda: first[index],
            lambda: main[index],
            lambda: torch.where(first > 0, second, second),
            lambda: torch.equal(first, second),
            lambda: torch.nn.functional.linear(first, second),
            lambda: first.index_add_(0, index, first[:1]),
        ):
            with pytest.raises(RuntimeError, match="different devices"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            first.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, generator=torch.Generator(), device="cuda:0")
        assert (first + 1.0).device == (first * torch.tensor(2.0)).device == torch.device("cuda:0")
        assert second[torch.tensor([0])].device == second.T[0].device == second.device
        assert torch.equal(first.to(second), second)
        assert first.to("cuda:1").device == second.device
        assert first.copy_(second).device == torch.device("cuda:0")
        assert torch.zeros_like(second).device == second.new_ones(1).device == second.device
