"""What every editing method owes to the session, on every family: README's table of methods says `tested` by this."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from collateral.deltas.file_format import read_increment, write_increment
from collateral.deltas.increment import rebuild
from collateral.deltas.update import dense, restore, snapshot
from collateral.editing.algorithms.hypernetwork import Hypernetwork, write_hypernetwork
from collateral.editing.method import AdapterMethod, Prepared, replaces
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.editing.registry import (
    declaration,
    is_flagged,
    load_method,
    load_regularizer,
    method_names,
    regularizer_names,
)
from collateral.editing.session import Editor, run_link
from collateral.editing.state import read_state, write_state
from tiny import ALL_FAMILIES, TEMPLATES, tiny_model

SMALL = {  # enough to do something, and quick
    "layer": 1,
    "layers": [1, 2],
    "v_num_grad_steps": 3,
    "mom2_update_weight": 1.0,
    "nullspace_threshold": 0.3,
    "like": "rome",
    "training_facts": 2,
    "rank": 3,
    "edit_lr": 0.25,
}
METHODS = method_names()


SETTINGS = {  # of the RECT paper: facts an operation, operations
    "instance-single": (1, 1),
    "batch-single": (3, 1),
    "instance-sequential": (1, 2),
    "batch-sequential": (2, 2),
}


def settings_run(method):
    """The settings of editing that a method has: in batches only where it takes them."""
    return [name for name, (size, _) in SETTINGS.items() if size == 1 or is_flagged(method, "batches")]


def settings_of(method):
    """The settings of a method for a tiny model, by the names that it declares."""
    return {name: SMALL[name] for name in declaration(method).annotations if name in SMALL}


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments")
    made = {}
    for layer in range(4):
        generator = torch.Generator().manual_seed(layer)
        root = torch.randn(64, 80, generator=generator, dtype=torch.float64)
        made[layer] = Moment(root @ root.T / 80, 80)
    path = folder / "moments-00-to-03.safetensors"
    write_moments(made, path, "tiny")
    return dict.fromkeys(made, path)


def prepared_for(method, model, facts, moments, folder) -> Prepared:
    """What a method is given: contexts, second moments, step norms, and a trained network where it learns one."""
    path = None
    if is_flagged(method, "hypernetwork"):
        editor = load_method(method, settings_of(method))
        network = Hypernetwork(editor.shapes(model), editor.rank, editor.edit_lr, editor.variant, 0)
        about = {"matrices": list(editor.shapes(model)), "rank": editor.rank, "variant": editor.variant}
        path = folder / "hypernetwork.safetensors"
        write_hypernetwork(network, path, model.base_sha256, [], about)
    norms = {fact.fact_id: 0.5 for fact in facts}
    return Prepared(TEMPLATES, moments=moments, step_norms=norms, seed=7, hypernetwork=path)


def edit_once(method, family, facts, moments, folder, *, side="right", dtype=torch.float32, device="cpu"):
    model = tiny_model(family, dtype)
    model.network.to(device)
    model.tokenizer.padding_side = side
    prepared = prepared_for(method, model, facts, moments, folder)
    count = 2 if is_flagged(method, "batches") else 1
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    editor = load_method(method, settings_of(method))
    edit = editor(model, facts[:count], prepared, {})
    return model, before, editor, edit


def fingerprint_hooks(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m))
        for m in model.network.modules()
    )


def same(left, right, tolerance=0.0):
    """Whether two edits are equal: updates and state."""
    assert set(left.delta.updates) == set(right.delta.updates)
    assert set(left.state) == set(right.state)
    for name in left.delta.updates:
        a, b = left.delta.dense(name), right.delta.dense(name)
        assert float((a - b).norm()) <= tolerance * float(a.norm()), name
    for name in left.state:
        a, b = left.state[name].double(), right.state[name].double()
        assert float((a - b).norm()) <= tolerance * float(a.norm()), name


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method, family, facts, moments, tmp_path):
    """The call leaves no trace; same seed, same result; declared parameters only; apply and restore give the bits."""
    model, before, editor, edit = edit_once(method, family, facts, moments, tmp_path)
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name]), f"the call changed {name}"
        assert not weight.requires_grad, f"the call left a gradient on {name}"
        assert weight.grad is None
    assert fingerprint_hooks(model) == 0, "the call left a hook"
    assert set(edit.delta.updates) <= set(editor.parameters(model))
    for name, update in edit.delta.updates.items():
        assert dense(update).shape == model.matrix(name).shape
        assert torch.isfinite(dense(update)).all()
        assert dense(update).dtype in (torch.float32, torch.float64), "a delta is exact: never half precision"
    if method not in ("noop",) and not is_flagged(method, "adapter"):
        assert edit.delta.norm() > 0
    _, _, _, again = edit_once(method, family, facts, moments, tmp_path)
    same(edit, again)
    saved = snapshot(model, tuple(edit.delta.updates))
    edit.delta.apply(model)
    for name, weight in model.network.named_parameters():
        if name not in edit.delta.updates:
            assert torch.equal(weight, before[name]), f"{name} was not declared, but changed"
    restore(model, saved)
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_padding_side_does_not_matter(method, facts, moments, tmp_path):
    _, _, _, right = edit_once(method, "gpt2", facts, moments, tmp_path)
    _, _, _, left = edit_once(method, "gpt2", facts, moments, tmp_path, side="left")
    same(right, left)


@pytest.mark.parametrize("method", METHODS)
def test_settings_survive_json_and_state_survives_its_file(method, facts, moments, tmp_path):
    settings = settings_of(method)
    assert load_method(method, json.loads(json.dumps(settings))) == load_method(method, settings)
    _, _, _, edit = edit_once(method, "llama", facts, moments, tmp_path)
    path = Path(tmp_path) / "state.safetensors"
    write_state(edit.state, path, 1, "x")
    read = read_state(path, 1, "x")
    assert {name: value.dtype for name, value in read.items()} == {n: v.dtype for n, v in edit.state.items()}
    same(edit, replace(edit, state=read))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_weights_take_exact_deltas(method, family, facts, moments, tmp_path):
    """Half-precision weights: the update stays float32 or wider, and is rounded once, when it is added."""
    model, before, _, edit = edit_once(method, family, facts, moments, tmp_path, dtype=torch.bfloat16)
    edit.delta.apply(model)
    for name, update in edit.delta.updates.items():
        assert dense(update).dtype in (torch.float32, torch.float64)
        old = model.oriented(before[name]).double()
        assert torch.equal(model.matrix(name), (old + dense(update).double()).to(torch.bfloat16))


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize(("method", "setting"), [(m, one) for m in METHODS for one in settings_run(m)])
def test_settings_of_editing(method, setting, family, facts, moments, tmp_path):
    """Every setting of the RECT paper: state is carried, probes see the edited model, replacing deltas are on W_0."""
    model = tiny_model(family)
    editor = load_method(method, settings_of(method))
    prepared = prepared_for(method, model, facts, moments, tmp_path)
    names = editor.parameters(model)
    w_0 = snapshot(model, names)
    seen = []

    def observe(group):
        seen.append([number for number, _ in group])
        if is_flagged(method, "adapter"):
            assert fingerprint_hooks(model) > 0, "the adapter is not attached while probes are taken"

    size, operations = SETTINGS[setting]
    recipe = Editor(editor, load_regularizer({}), batch_size=size)
    numbered = list(enumerate(facts[: size * operations], start=1))
    link = run_link(model, recipe, numbered, prepared, {}, original=w_0, seed=0, observe=observe)
    assert [len(group) for group in seen] == [size] * operations
    assert [record["status"] for record in link.records] == ["applied"] * size * operations
    assert set(link.after) == set(link.before) <= set(names)
    for name, live in link.after.items():
        assert torch.equal(model.network.get_parameter(name).data, live)
    if replaces(editor):
        assert all(torch.equal(link.before[name], w_0[name]) for name in names)
    if is_flagged(method, "adapter"):
        assert isinstance(editor, AdapterMethod)
        assert fingerprint_hooks(model) == 0


@pytest.mark.parametrize("name", ["rect", "pca", "prune"])
def test_a_bias_is_left_alone_by_regularizers(name, facts, moments, tmp_path):
    """A trained bias is no matrix: it is added as it is, beside the regularised matrix."""
    model = tiny_model("gpt2")
    editor = load_method("ft", {"layer": 1, "num_steps": 3, "biases": True})
    original = snapshot(model, editor.parameters(model))
    recipe = Editor(editor, load_regularizer({"name": name, "keep": 40.0}))
    prepared = prepared_for("ft", model, facts, moments, tmp_path)
    link = run_link(
        model,
        recipe,
        [(1, facts[0])],
        prepared,
        {},
        original=original,
        seed=0,
        observe=lambda _: None,
    )
    bias = next(n for n in link.after if n.endswith("bias"))
    assert bool((link.after[bias] != original[bias]).all())


@pytest.mark.parametrize("name", sorted(set(regularizer_names()) - {"none"}))
@pytest.mark.parametrize("method", [m for m in METHODS if m != "noop" and not is_flagged(m, "adapter")])
def test_every_regularizer_combines_with_every_editor(method, name, facts, moments, tmp_path):
    """RECT, random, PCA, magnitude on each update, PRUNE on the accumulated one: finite, smaller or equal."""
    results = {}
    for regularizer in ("none", name):
        model = tiny_model("llama")
        editor = load_method(method, settings_of(method))
        prepared = prepared_for(method, model, facts, moments, tmp_path)
        original = snapshot(model, editor.parameters(model))
        link = run_link(
            model,
            Editor(editor, load_regularizer({"name": regularizer, "keep": 40.0})),
            [(1, facts[0])],
            prepared,
            {},
            original=original,
            seed=0,
            observe=lambda _: None,
        )
        change = [(link.after[n].double() - original[n].double()) for n in link.after]
        results[regularizer] = change
    plain, regularized = results["none"], results[name]
    assert all(torch.isfinite(one).all() for one in regularized)
    size = lambda changes: float(sum(one.pow(2).sum() for one in changes))  # noqa: E731
    assert size(regularized) <= size(plain) * (1 + 1e-6)
    if name in ("rect", "random", "magnitude"):
        kept = sum(int((one != 0).sum()) for one in regularized)
        wanted = sum(-(-40 * one.numel() // 100) for one in regularized if bool((one != 0).any()))
        assert kept <= wanted


def updates_in_factors():
    """The editors whose every update is of low rank and adds to the weights before."""
    dense_or_replacing = ("ft", "d4s", "noop")
    return [m for m in METHODS if m not in dense_or_replacing and not is_flagged(m, "adapter")]


@pytest.mark.parametrize("name", ["none", "rect", "random", "magnitude"])
@pytest.mark.parametrize("method", updates_in_factors())
def test_updates_of_low_rank_are_stored_as_factors_where_that_is_smaller(
    method, name, facts, moments, tmp_path
):
    """Two operations, masked or not, on a family that stores Wᵀ; what a file gives is the live model."""
    model = tiny_model("gpt2")
    editor = load_method(method, settings_of(method))
    prepared = prepared_for(method, model, facts, moments, tmp_path)
    original = snapshot(model, editor.parameters(model))
    recipe = Editor(editor, load_regularizer({"name": name, "keep": 40.0}))
    few = 1 if method == "mend" else 2  # of which one operation's factors are half as large as a tiny matrix
    numbered = list(enumerate(facts[:few], start=1))
    link = run_link(model, recipe, numbered, prepared, {}, original=original, seed=0, observe=lambda _: None)
    assert link.operations is not None
    about = {"base_sha256": "x", "mode": "additive", "from_edits": 0, "to_edits": 2, "editor": {}}
    chosen, elements = tmp_path / "chosen.parquet", tmp_path / "elements.parquet"
    write_increment(chosen, link.before, link.after, about, link.operations)
    write_increment(elements, link.before, link.after, about)
    assert chosen.stat().st_size <= elements.stat().st_size
    one = read_increment(chosen)
    for parameter, live in rebuild(link.before, [one]).items():
        assert torch.equal(live, model.network.get_parameter(parameter).data)
    if method not in (
        "kn",
        "mend",
    ):  # few columns; as many ranks as tokens: for tiny matrices it may be either
        assert one.metadata["encoding"] == "factors"
