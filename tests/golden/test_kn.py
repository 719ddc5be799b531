"""Knowledge neurons against plain loops over full passes, and the shape of their edit, on tiny models."""

import logging
from dataclasses import replace

import pytest
import torch
from plain import plain_kn

from collateral.editing.algorithms.integrated_gradients import LastToken, integrated_gradients
from collateral.editing.method import Prepared, UnstableEditError
from collateral.editing.methods.kn import Kn, greedy
from collateral.editing.registry import check_settings
from collateral.errors import CollateralError
from collateral.models.tokenization import tokenize
from tiny import FAMILIES, tiny_model

BARE = Prepared(("{}",))


@pytest.fixture
def single(fact):
    """A fact whose old and new answers are one token each, with and without a leading space."""
    return replace(fact, target_true="Camelot", target_new="is")


@pytest.fixture
def several(fact):
    """A fact whose old and new answers have several tokens."""
    return replace(fact, target_true="Camelot river", target_new="Benwick town")


def paper_texts(model, fact):
    row = tokenize(model.tokenizer, fact.text(), fact.target_true)
    return [(row.ids[: row.prompt_length + j], token) for j, token in enumerate(row.target)]


def probability(model, ids, token, layer=None, neurons=None, gate=False):
    """p(token) by one full pass, with one layer's neurons at the last token replaced."""

    def before(_, args):
        return (torch.cat([args[0][:, :-1], neurons[None, None]], dim=1),)

    def after(_, __, output):
        return torch.cat([output[:, :-1], neurons[None, None]], dim=1)

    if layer is None:
        return model.network(torch.tensor([ids])).logits[0, -1].softmax(-1)[token]
    if gate:
        handle = model.module(model.architecture.inputs[0].format(layer)).register_forward_hook(after)
    else:
        handle = model.down(layer).register_forward_pre_hook(before)
    p = model.network(torch.tensor([ids])).logits[0, -1].softmax(-1)[token]
    handle.remove()
    return p


def test_attribution_equals_the_plain_one(model, single, several):
    for one in (single, several):
        texts = paper_texts(model, one)
        assert (len(texts) == 1) == (one is single)
        fast = Kn(steps=5).attribution(model, one)
        plain = plain_kn(model, texts, 5)
        assert fast.shape == (4, 64)
        assert torch.allclose(fast, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)


def test_released_attribution_equals_a_plain_one(model, single, several):
    """Both ends of the path, the (gate's) input projection's output, no leading space, the model's own words."""
    for one in (single, several):
        prompt = model.tokenizer(one.text())["input_ids"]
        old = model.tokenizer(one.target_true)["input_ids"]
        total = torch.zeros(4, 64)
        ids = list(prompt)
        for token in old:
            for layer in range(4):
                module = model.module(model.architecture.inputs[0].format(layer))
                held = []
                handle = module.register_forward_hook(lambda _, __, out, held=held: held.append(out[0, -1]))
                model.network(torch.tensor([ids]))
                handle.remove()
                for scale in (0.0, 1 / 3, 2 / 3, 1.0):
                    at = (held[0] * scale).requires_grad_()
                    p = probability(model, ids, token, layer, at, gate=True)
                    total[layer] += held[0] * torch.autograd.grad(p, at)[0] / 4
            if model.network.config.model_type == "llama":
                ids.append(int(model.network(torch.tensor([ids])).logits[0, -1].argmax()))
        plain = total / len(old)
        fast = Kn(steps=4, variant="released").attribution(model, one)
        assert torch.allclose(fast, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)


def test_attributions_of_a_layer_sum_to_what_it_adds(model, single):
    """Completeness: sum_i attr_i = p(a) - p(0), up to the Riemann sum's error, which falls as 1/steps."""
    ((ids, token),) = paper_texts(model, single)
    last = LastToken(model, ids)
    p = float(probability(model, ids, token))
    zero = [float(probability(model, ids, token, layer, torch.zeros(64))) for layer in range(4)]
    added = p - torch.tensor(zero)
    errors = []
    for steps in (10, 300):
        scales = [k / steps for k in range(1, steps + 1)]
        errors.append((integrated_gradients(last, token, scales, 128).sum(dim=1) - added).abs().max())
    assert float(errors[1]) < 0.02 * float(added.abs().max())
    assert float(errors[1]) < 0.1 * float(errors[0])


def test_a_text_of_one_token(model):
    assert torch.allclose(
        integrated_gradients(LastToken(model, [5]), 7, [0.5, 1.0], 3),
        plain_kn(model, [((5,), 7)], 2),
        atol=1e-8,
    )


def test_rows_side_by_side_change_nothing_but_last_digits(model, single):
    one = Kn(steps=3, batch=1).attribution(model, single)
    all_ = Kn(steps=3, batch=10**6).attribution(model, single)
    assert torch.allclose(one, all_, atol=1e-6 * float(one.abs().max()), rtol=0)


def test_the_same_shift_in_every_neuron_above_the_threshold(model, single):
    kn = Kn(steps=4, adaptive_threshold=0.3, lambda_old=1.5, lambda_new=5.0)
    scores = plain_kn(model, paper_texts(model, single), 4)
    chosen = scores > 0.3 * scores.max()
    edit = kn(model, [single], BARE, {})
    assert edit.record["neurons"] == int(chosen.sum()) >= 1
    old, new = (model.tokenizer(" " + text)["input_ids"] for text in (single.target_true, single.target_new))
    table = model.network.get_input_embeddings().weight
    shift = 5.0 * table[new[0]] - 1.5 * table[old[0]]
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    edit.delta.apply(model)
    for layer in range(4):
        name = model.down_name(layer)
        assert (name in edit.delta.updates) == bool(chosen[layer].any())
        moved = model.matrix(name) - model.oriented(before[name])
        assert torch.equal(moved.abs().sum(dim=0) > 0, chosen[layer])
        assert torch.allclose(
            moved[:, chosen[layer]], shift[:, None].expand(-1, int(chosen[layer].sum())), atol=1e-5
        )
    for name, weight in model.network.named_parameters():
        assert name in edit.delta.updates or torch.equal(weight, before[name]), name


def test_neurons_of_all_layers_are_compared_with_one_maximum(model, single):
    edit = Kn(steps=3, adaptive_threshold=0.9999)(model, [single], BARE, {})
    assert edit.record["neurons"] == 1
    ((_, update),) = edit.delta.updates.items()
    assert update.left.shape == (32, 1)
    assert update.right.sum() == 1
    fewer, more = (Kn(steps=3, adaptive_threshold=t)(model, [single], BARE, {}).record for t in (0.5, 0.1))
    assert fewer["neurons"] < more["neurons"]


def test_paper_shift_of_several_tokens_is_of_their_means(model, several):
    old, new = (model.tokenizer(" " + t)["input_ids"] for t in (several.target_true, several.target_new))
    table = model.network.get_input_embeddings().weight
    assert torch.allclose(Kn()._shift(model, several), 8 * table[new].mean(0) - table[old].mean(0), atol=1e-6)


def test_released_shift_takes_the_models_own_completion_away(model, single, several):
    table = model.network.get_input_embeddings().weight
    for one, factor in ((single, 2), (several, 1)):
        new = model.tokenizer(one.target_new)["input_ids"]
        ids = list(model.tokenizer(one.text())["input_ids"])
        for _ in new:
            ids.append(int(model.network(torch.tensor([ids])).logits[0, -1].argmax()))
        shift = table[new].sum(0) - factor * table[ids[-len(new) :]].sum(0)
        assert (len(new) == 1) == (factor == 2)
        found = Kn(variant="released", lambda_old=7.0, lambda_new=7.0)._shift(model, one)
        assert torch.allclose(found, shift, atol=1e-6)


def test_without_a_true_answer_the_models_own_is_explained(model, single):
    unnamed = replace(single, target_true="")
    prompt = tuple(model.tokenizer(single.text())["input_ids"])
    (own,) = greedy(model, prompt, 1)
    plain = plain_kn(model, [(prompt, own)], 3)
    for variant in ("paper", "released"):
        _, old, _ = Kn(variant=variant)._answers(model, unnamed)
        assert old == (own,)
    assert torch.allclose(
        Kn(steps=3).attribution(model, unnamed), plain, atol=1e-5 * float(plain.abs().max()), rtol=0
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_one_step_warns(llama, single, variant, caplog):
    with caplog.at_level(logging.WARNING):
        Kn(steps=2, variant=variant)(llama, [single], BARE, {})
        assert caplog.messages == []
        Kn(steps=1, variant=variant)(llama, [single], BARE, {})
    assert caplog.messages == [
        "kn: steps is 1: one gradient, not an integral, decides which neurons are edited"
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_call_leaves_the_model_as_it_was(dtype, variant, several):
    for family in FAMILIES:
        model = tiny_model(family, dtype)
        before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
        kn = Kn(steps=2, variant=variant)
        edit = kn(model, [several], BARE, {})
        assert 0 < edit.delta.norm() < float("inf")
        for name, weight in model.network.state_dict().items():
            assert torch.equal(weight, before[name]), name
        assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
        hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.network.modules()]
        assert not any(hooks)
        assert not any("forward" in vars(m) for m in model.network.modules())
        edit.delta.apply(model)


def test_twice_the_same(model, single):
    one, two = (Kn(steps=2)(model, [single], BARE, {}).delta for _ in range(2))
    assert set(one.updates) == set(two.updates)
    assert all(torch.equal(one.dense(name), two.dense(name)) for name in one.updates)


def test_the_padding_side_is_the_same_to_it(several):
    scores = []
    for side in ("left", "right"):
        model = tiny_model("gpt2")
        model.tokenizer.padding_side = side
        scores.append(Kn(steps=2).attribution(model, several))
    assert torch.equal(*scores)


def test_a_collapsed_model_is_one_line(llama, single):
    llama.matrix(llama.down_name(3)).fill_(float("nan"))
    with pytest.raises(UnstableEditError, match="'capital-avalon': the largest attribution is nan"):
        Kn(steps=2)(llama, [single], BARE, {})


def test_settings_out_of_range():
    with pytest.raises(CollateralError, match="kn: steps is 0; it must be above 0"):
        check_settings("kn", {"steps": 0}, "here")
    with pytest.raises(
        CollateralError, match=r"kn: adaptive_threshold is 1\.0; it must be at least 0 and below 1"
    ):
        check_settings("kn", {"adaptive_threshold": 1.0}, "here")
