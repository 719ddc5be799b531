"""ROME by algebra, on tiny random models of four families."""

import pytest
import torch
from torch.nn import functional

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, restore, snapshot
from collateral.editing.algorithms.value_optimization import Objective, optimize_target
from collateral.editing.method import Prepared
from collateral.editing.methods.rome import Rome
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.editing.registry import check_settings
from collateral.errors import CollateralError
from collateral.models.hooks import capture
from collateral.models.tokenization import tokenize
from tiny import tiny_model

LAYER = 1
ROME = Rome(layer=LAYER, v_num_grad_steps=6)


def subject_activations(model, fact, template="{}"):
    """Key and MLP output at the subject's last token, by one plain unpadded forward pass."""
    row = tokenize(model.tokenizer, fact.text(template), "", fact.subject_span(template))
    mlp = model.module(model.architecture.mlp.format(LAYER))
    with torch.no_grad(), capture(model.down(LAYER)) as down, capture(mlp) as out:
        model.network(torch.tensor([row.ids]))
    return down["input"][0, row.subject_last], out["output"][0, row.subject_last]


def plain_target(model, fact, templates, objective):
    """The same optimisation, written plainly: each text alone, a full forward pass for each step."""
    rows = [tokenize(model.tokenizer, fact.text(t), fact.target_new, fact.subject_span(t)) for t in templates]
    essence = tokenize(model.tokenizer, f"{fact.subject} is a", subject=(0, len(fact.subject)))
    mlp = model.module(model.architecture.mlp.format(LAYER))
    _, h_0 = subject_activations(model, fact)
    delta = torch.zeros_like(h_0, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=objective.learning_rate)
    first, losses = None, []
    for step in range(objective.steps):

        def logits(ids, where):
            def add(_, __, output):
                shifted = output.clone()
                shifted[0, where] = shifted[0, where] + delta
                return shifted

            handle = mlp.register_forward_hook(add)
            result = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
            handle.remove()
            return result

        nll = 0.0
        for row in rows:
            log_p = logits(row.ids[:-1], row.subject_last)
            picked = [log_p[row.prompt_length - 1 + j, t] for j, t in enumerate(row.target)]
            nll = nll - torch.stack(picked).mean() / len(rows)
        now = logits(essence.ids, essence.subject_last)[essence.subject_last]
        first = now.detach() if first is None else first
        drift = (now.exp() * (now - first)).sum()  # KL(p_delta || p_0)
        loss = nll + objective.kl_factor * drift + objective.weight_decay * delta.norm() / h_0.norm() ** 2
        losses.append(float(loss.detach()))
        if losses[-1] < objective.stop_loss or step == objective.steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            limit = objective.clamp_factor * h_0.norm()
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())
    return delta.detach(), losses


def test_resumed_optimisation_equals_the_plain_one(model, fact, templates):
    objective = Objective(8, 0.5, 0.5, 4.0, 0.0625)
    fast = optimize_target(model, fact, templates, LAYER, objective)
    delta, losses = plain_target(model, fact, templates, objective)
    assert fast.losses == pytest.approx(losses, rel=2e-4)
    assert functional.cosine_similarity(fast.delta, delta, dim=0) > 0.9999
    assert torch.allclose(fast.delta, delta, atol=2e-3 * float(delta.abs().max()))


def test_clamp_bounds_the_shift(llama, fact, templates):
    target = optimize_target(llama, fact, templates, LAYER, Objective(6, 0.5, 0.0, 0.25, 0.0))
    assert float(target.delta.norm()) == pytest.approx(0.25 * float(target.values[0].norm()), rel=1e-4)


def test_keys_and_values_are_those_of_plain_passes(model, fact, templates):
    target = optimize_target(model, fact, templates, LAYER, Objective(1, 0.5, 0.5, 4.0, 0.0625))
    for number, template in enumerate(templates):
        key, value = subject_activations(model, fact, template)
        assert torch.allclose(target.keys[number], key, atol=1e-5)
        assert torch.allclose(target.values[number], value, atol=1e-5)


def test_the_bare_prompt_key_maps_to_the_wanted_value(model, fact, templates):
    key, value = subject_activations(model, fact)
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    edit = ROME(model, [fact], Prepared(templates), {})
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name]), f"the call itself changed {name}"
    name = model.down_name(LAYER)
    assert set(edit.delta.updates) == {name}
    edit.delta.apply(model)
    wanted = optimize_with(model, before, fact, templates)
    _, moved = subject_activations(model, fact)
    # W' k - W k = delta, the wanted shift, for the key of the bare prompt
    assert torch.allclose(moved - value, wanted, atol=1e-4 * float(wanted.norm()))
    assert torch.allclose((edit.delta.dense(name) @ key), wanted, atol=1e-4 * float(wanted.norm()))
    for other, weight in model.network.named_parameters():
        if other != name:
            assert torch.equal(weight, before[other]), f"{other} was touched"


def optimize_with(model, before, fact, templates):
    """The shift that the unedited weights lead to."""
    edited = {name: weight.clone() for name, weight in model.network.named_parameters()}
    restore(model, before)
    objective = Objective(ROME.v_num_grad_steps, 0.5, 0.5, 4.0, 0.0625)
    delta = optimize_target(model, fact, templates, LAYER, objective).delta
    restore(model, edited)
    return delta


def test_rank_is_one(model, fact, templates):
    edit = ROME(model, [fact], Prepared(templates), {})
    values = torch.linalg.svdvals(edit.delta.dense(model.down_name(LAYER)).double())
    assert float(values[1]) < 1e-6 * float(values[0])


def test_direction_without_moments_is_the_mean_key(llama, fact, templates):
    keys = [subject_activations(llama, fact, template)[0] for template in templates]
    update = ROME(llama, [fact], Prepared(templates), {}).delta.updates[llama.down_name(LAYER)]
    mean = torch.stack(keys).mean(0)
    assert functional.cosine_similarity(update.right[:, 0], mean, dim=0) > 0.999999


def test_moments_turn_the_direction_and_keep_the_constraint(llama, fact, templates, tmp_path):
    """With C the update is (C^-1 k_bar) direction; the bare key still maps to v*; other keys move less."""
    torch.manual_seed(3)
    root = torch.randn(64, 64, dtype=torch.float64)
    c = root @ root.T / 64 + 0.1 * torch.eye(64, dtype=torch.float64)
    write_moments({LAYER: Moment(c, 1000)}, tmp_path / "moment.safetensors", "tiny")
    prepared = Prepared(templates, moments={LAYER: tmp_path / "moment.safetensors"})
    rome = Rome(layer=LAYER, v_num_grad_steps=4, mom2_adjustment=True)
    edit = rome(llama, [fact], prepared, {})
    update = edit.delta.updates[llama.down_name(LAYER)]
    keys = torch.stack([subject_activations(llama, fact, t)[0] for t in templates])
    direction = torch.linalg.inv(c) @ keys.mean(0).double()
    direction /= direction.norm()
    assert torch.allclose(update.right[:, 0].double(), direction, atol=1e-5)
    shift = update.dense() @ keys[0]
    assert float(shift.norm()) == pytest.approx(edit.record["delta_norm"], rel=1e-4)


def test_fact_position_does_not_depend_on_padding_side(fact, templates):
    """Left and right padding of the tokenizer give the same update, bit for bit."""
    updates = []
    for side in ("left", "right"):
        model = tiny_model("gpt2")
        model.tokenizer.padding_side = side
        updates.append(ROME(model, [fact], Prepared(templates), {}).delta.dense(model.down_name(LAYER)))
    assert torch.equal(*updates)


@pytest.mark.parametrize("extra", ["{}", "Because the river is blue and the sea is far, I think so. {}"])
def test_a_longer_neighbour_in_the_batch_changes_no_key(model, fact, extra):
    """More padding in front of the short rows moves nothing but the last digits."""
    objective = Objective(1, 0.5, 0.5, 4.0, 0.0625)
    short = optimize_target(model, fact, ("{}",), LAYER, objective)
    long = optimize_target(model, fact, ("{}", extra), LAYER, objective)
    assert torch.allclose(short.keys[0], long.keys[0], atol=1e-5)
    assert torch.allclose(short.values[0], long.values[0], atol=1e-5)


def test_transposed_storage_gives_the_same_edit(fact, templates):
    """The same network with a plain d_out x d_in matrix in place of Conv1D's gives the same update."""
    stored = tiny_model("gpt2")
    plain = tiny_model("gpt2")
    conv = plain.down(LAYER)
    linear = torch.nn.Linear(64, 32)
    linear.weight.data, linear.bias.data = conv.weight.data.T.contiguous(), conv.bias.data
    plain.network.transformer.h[LAYER].mlp.c_proj = linear.requires_grad_(False)
    left = ROME(stored, [fact], Prepared(templates), {}).delta
    right = ROME(plain, [fact], Prepared(templates), {}).delta
    name = stored.down_name(LAYER)
    assert left.dense(name).shape == (32, 64)
    assert torch.allclose(left.dense(name), right.dense(name), atol=1e-5)
    before = stored.network.get_parameter(name).clone()
    left.apply(stored)
    assert torch.allclose(stored.network.get_parameter(name) - before, left.dense(name).T, atol=1e-5)


@pytest.mark.parametrize("prompt", ["{} is the home of", "{} and {} is", "Where? {}"])
def test_subject_anywhere_in_the_prompt(model, templates, prompt):
    fact = Fact("x", "Avalon", "r", prompt.replace("and {}", "and Avalon"), "river", "sea")
    edit = ROME(model, [fact], Prepared(templates), {})
    assert edit.record["loss"] == edit.record["loss"]
    assert edit.delta.norm() > 0


def test_apply_then_restore_gives_the_bits_back(model, fact, templates):
    saved = snapshot(model, ROME.parameters(model))
    ROME(model, [fact], Prepared(templates), {}).delta.apply(model)
    name = model.down_name(LAYER)
    assert not torch.equal(model.network.get_parameter(name), saved[name])
    restore(model, saved)
    assert torch.equal(model.network.get_parameter(name), saved[name])


def test_apply_rounds_the_float64_sum_once(llama):
    name = llama.down_name(0)
    matrix = llama.matrix(name)
    matrix.fill_(1.0)
    # 1 + 2^-25 + 2^-25 in float32 steps stays 1; summed in float64 and rounded once it is 1 + 2^-24 -> even: 1
    Delta({name: torch.full((32, 64), 3 * 2.0**-25)}).apply(llama)
    assert float(matrix[0, 0]) == 1.0 + 2.0**-23


def test_layer_outside_the_model(llama, fact, templates):
    with pytest.raises(CollateralError, match=r"layer 9 is outside the model: it has layers 0 to 3"):
        Rome(layer=9)(llama, [fact], Prepared(templates), {})


@pytest.mark.parametrize("setting", ["v_lr", "v_num_grad_steps", "clamp_norm_factor"])
def test_settings_out_of_range(setting):
    with pytest.raises(CollateralError, match=f"{setting} is 0; it must be above 0"):
        check_settings("rome", {"layer": 0, setting: 0}, "here")
