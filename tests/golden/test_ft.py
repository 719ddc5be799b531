"""Fine-tuning against a plain training loop, and its box against the stored weights, on tiny models."""

from dataclasses import replace

import pytest
import torch

from collateral.editing.method import Prepared, UnstableEditError
from collateral.editing.methods.ft import Ft
from collateral.editing.registry import check_settings
from collateral.errors import CollateralError
from collateral.models.tokenization import tokenize
from tiny import FAMILIES, tiny_model

LAYER = 1
BARE = Prepared(("{}",))


def stored(model, biases=False):
    """The trained tensors of the network itself, as the family stores them."""
    down = model.down(LAYER)
    return [down.weight, down.bias] if biases and getattr(down, "bias", None) is not None else [down.weight]


def plain_ft(model, facts, ft):
    """The same training, written plainly: the weights themselves, one full unpadded pass for each fact."""
    trained = stored(model, ft.biases)
    start = [weight.detach().clone() for weight in trained]
    for weight in trained:
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=ft.lr)
    means = []
    for _ in range(ft.num_steps):
        losses = []
        for i in range(0, len(facts), ft.minibatch):
            own = []
            for fact in facts[i : i + ft.minibatch]:
                row = tokenize(model.tokenizer, fact.text(), fact.target_new)
                last = row.prompt_length - 1
                ids = row.ids[: last + 1] if ft.objective == "prompt_last" else row.ids
                log_p = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
                where = [last + (0 if ft.objective == "prompt_last" else j) for j in range(len(row.target))]
                own.append(-torch.stack([log_p[w, t] for w, t in zip(where, row.target, strict=True)]).mean())
            losses += [float(loss.detach()) for loss in own]
            loss = torch.stack(own).mean()
            if float(loss.detach()) < 0.01:
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if ft.norm_constraint is not None:
                with torch.no_grad():
                    for weight, first in zip(trained, start, strict=True):
                        weight.clamp_(first - ft.norm_constraint, first + ft.norm_constraint)
        means.append(sum(losses) / len(losses))
        if means[-1] < 0.01:
            break
    return [weight.detach() - first for weight, first in zip(trained, start, strict=True)], means


@pytest.mark.parametrize("objective", ["target_new", "prompt_last"])
@pytest.mark.parametrize("bound", [None, 0.004])
def test_resumed_training_equals_the_plain_one(model, facts, objective, bound):
    ft = Ft(
        layer=LAYER,
        objective=objective,
        lr=0.002,
        num_steps=6,
        norm_constraint=bound,
        minibatch=2,
        biases=True,
    )
    edit = ft(model, facts[:3], BARE, {})
    wanted, means = plain_ft(tiny_model(model.network.config.model_type), facts[:3], ft)
    assert edit.record == {"loss": pytest.approx(means[-1], rel=1e-4), "steps": 6.0}
    assert len(wanted) == len(edit.delta.updates)
    for name, update in zip(ft.parameters(model), wanted, strict=True):
        # an element whose gradient is rounding noise may step either way, so not every last one must agree
        apart = (edit.delta.dense(name) - model.oriented(update)).norm()
        assert float(apart) < 0.01 * float(update.norm())


def test_objectives_differ_where_a_target_has_several_tokens(model, fact):
    def trained(one, objective):
        return Ft(layer=LAYER, objective=objective, num_steps=2)(model, [one], BARE, {}).delta.dense(name)

    name = model.down_name(LAYER)
    single = replace(fact, target_new="Camelot", target_true="")
    assert len(tokenize(model.tokenizer, fact.text(), fact.target_new).target) > 1
    assert len(tokenize(model.tokenizer, single.text(), single.target_new).target) == 1
    assert torch.equal(trained(single, "target_new"), trained(single, "prompt_last"))
    several, bag = trained(fact, "target_new"), trained(fact, "prompt_last")
    assert float((several - bag).norm()) > 0.1 * float(several.norm())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_stored_weights_stay_in_the_box(family, dtype, fact):
    """The box holds exactly, after rounding; it is reached, so the test is not empty."""
    bound = 0.003
    model = tiny_model(family, dtype)
    name = model.down_name(LAYER)
    before = model.matrix(name).double()
    Ft(layer=LAYER, lr=0.002, num_steps=8, norm_constraint=bound)(model, [fact], BARE, {}).delta.apply(model)
    moved = (model.matrix(name).double() - before).abs()
    assert float(moved.max()) <= bound
    assert float(moved.max()) > 0.9 * bound


def test_rounding_is_towards_the_box():
    """By hand, in bfloat16: steps of 2^-9 above 0.25 and of 2^-10 below, 2^-7 above 1."""
    weight = torch.tensor([0.25, 0.25, 1.0, 0.0], dtype=torch.bfloat16)
    update = torch.tensor([0.003, -0.003, 0.003, 0.003])
    boxed = Ft(layer=0, norm_constraint=0.003)._boxed(weight, update)
    # 0.003 is 1.5 and -0.003 is 3.1 of these steps: nearest would be 2 (outside) and 3; at 1 no step fits
    assert boxed[:3].tolist() == [2.0**-9, -3 * 2.0**-10, 0.0]
    assert 0.00298 < float(boxed[3]) <= 0.003
    assert torch.equal((weight.double() + boxed).to(torch.bfloat16).double(), weight.double() + boxed)


def test_the_box_moves_with_the_sequence(llama, fact, facts):
    ft = Ft(layer=LAYER, lr=0.002, num_steps=4, norm_constraint=0.002)
    name = llama.down_name(LAYER)
    original = llama.matrix(name).clone()
    ft(llama, [fact], BARE, {}).delta.apply(llama)
    between = llama.matrix(name).clone()
    ft(llama, [facts[1]], BARE, {}).delta.apply(llama)
    assert float((llama.matrix(name).double() - between.double()).abs().max()) <= 0.002
    assert float((llama.matrix(name) - original).abs().max()) > 0.0035


def test_biases_only_where_asked_and_where_there_are_any(model, fact):
    weight = model.down_name(LAYER)
    assert Ft(layer=LAYER).parameters(model) == (weight,)
    assert set(Ft(layer=LAYER, num_steps=1)(model, [fact], BARE, {}).delta.updates) == {weight}
    both = Ft(layer=LAYER, num_steps=1, biases=True)
    bias = weight.replace("weight", "bias")
    found = both(model, [fact], BARE, {}).delta
    has_one = model.network.config.model_type != "llama"
    assert set(found.updates) == set(both.parameters(model)) == ({weight, bias} if has_one else {weight})
    if has_one:
        before = model.network.get_parameter(bias).clone()
        found.apply(model)
        step = (model.network.get_parameter(bias) - before).abs()
        assert float(step.max()) == pytest.approx(0.0005, rel=1e-3)  # Adam's first step is its learning rate


def test_it_stops_and_then_leaves_a_learnt_fact_alone(model, facts, monkeypatch):
    ft = Ft(layer=LAYER, lr=0.05, num_steps=60)
    learnt, other = replace(facts[0], target_new="Camelot", target_true=""), facts[1]
    # a random model is never sure, so the bound is moved to what eight steps reach
    enough = replace(ft, num_steps=8)(model, [learnt], BARE, {}).record["loss"]
    monkeypatch.setattr("collateral.editing.methods.ft.STOP_LOSS", enough)
    first = ft(model, [learnt], BARE, {})
    assert first.record["loss"] < enough
    assert 1 < first.record["steps"] < 60
    first.delta.apply(model)
    again = ft(model, [learnt], BARE, {})
    assert again.record == {"loss": pytest.approx(first.record["loss"], rel=1e-5), "steps": 1}
    assert again.delta.norm() == 0
    # beside another fact it is left out of the steps
    one = replace(ft, num_steps=1, minibatch=1)
    both, alone = (one(model, some, BARE, {}) for some in ([learnt, other], [other]))
    assert both.record["loss"] == pytest.approx((again.record["loss"] + alone.record["loss"]) / 2, rel=1e-5)
    name = model.down_name(LAYER)
    assert alone.delta.norm() > 0
    assert torch.equal(both.delta.dense(name), alone.delta.dense(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_call_leaves_the_model_as_it_was(dtype, facts):
    for family in FAMILIES:
        model = tiny_model(family, dtype)
        before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
        ft = Ft(layer=LAYER, num_steps=3, biases=True, minibatch=4)
        edit = ft(model, facts, BARE, {})
        for name, weight in model.network.state_dict().items():
            assert torch.equal(weight, before[name]), name
        assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
        hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.network.modules()]
        assert not any(hooks)
        again = ft(model, facts, BARE, {})
        assert all(torch.equal(edit.delta.dense(n), again.delta.dense(n)) for n in edit.delta.updates)


def test_the_padding_side_is_the_same_to_it(facts):
    updates = []
    for side in ("left", "right"):
        model = tiny_model("gpt2")
        model.tokenizer.padding_side = side
        edit = Ft(layer=LAYER, num_steps=2)(model, facts, BARE, {})
        updates.append(edit.delta.dense(model.down_name(LAYER)))
    assert torch.equal(*updates)


def test_a_collapsed_model_is_one_line(llama, fact):
    llama.matrix(llama.down_name(3)).fill_(float("nan"))
    with pytest.raises(
        UnstableEditError, match="'capital-avalon': the loss of the fine-tuning is nan at step 1"
    ):
        Ft(layer=LAYER)(llama, [fact], BARE, {})


@pytest.mark.parametrize("setting", ["lr", "num_steps", "norm_constraint", "minibatch"])
def test_settings_out_of_range(setting):
    with pytest.raises(CollateralError, match=f"ft: {setting} is 0; it must be above 0"):
        check_settings("ft", {"layer": 0, setting: 0}, "here")
