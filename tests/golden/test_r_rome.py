"""R-ROME: one key everywhere, in both conventions, against ROME and against hand-made algebra."""

import pytest
import torch

from collateral.editing.algorithms.value_optimization import Objective, optimize_target
from collateral.editing.method import Prepared
from collateral.editing.methods.r_rome import RRome
from collateral.editing.methods.rome import Rome
from collateral.errors import CollateralError
from collateral.models.hooks import capture
from collateral.models.tokenization import tokenize

LAYER = 1
STEPS = {"v_num_grad_steps": 5}


def activations(model, fact, template):
    """Key and MLP output at the subject's last token, by one plain unpadded forward pass."""
    row = tokenize(model.tokenizer, fact.text(template), "", fact.subject_span(template))
    with torch.no_grad(), capture(model.down(LAYER)) as down, capture(model.mlp(LAYER)) as mlp:
        model.network(torch.tensor([row.ids]))
    return down["input"][0, row.subject_last], mlp["output"][0, row.subject_last]


@pytest.mark.parametrize("keys", ["prefixed", "bare"])
def test_without_contexts_it_is_rome(model, fact, keys):
    bare = Prepared(("{}",))
    name = model.down_name(LAYER)
    rome = Rome(LAYER, **STEPS)(model, [fact], bare, {}).delta.dense(name)
    other = RRome(LAYER, keys=keys, **STEPS)(model, [fact], bare, {}).delta.dense(name)
    assert torch.allclose(rome, other, atol=1e-6 * float(rome.abs().max()))


@pytest.mark.parametrize("keys", ["prefixed", "sampled", "bare"])
def test_the_chosen_key_gets_the_whole_shift(llama, fact, templates, keys):
    """dW k_e = delta for k_e, which ROME grants to the bare prompt's key only; u is parallel to k_e."""
    rows = [activations(llama, fact, template) for template in templates]
    chosen = {"prefixed": rows, "sampled": rows[1:], "bare": rows[:1]}[keys]
    k_e = torch.stack([key for key, _ in chosen]).mean(0)
    update = RRome(LAYER, keys=keys, **STEPS)(llama, [fact], Prepared(templates), {}).delta
    objective = Objective(5, 0.5, 0.5, 4.0, 0.0625)
    delta = optimize_target(llama, fact, templates, LAYER, objective).delta
    wanted = torch.outer(delta, k_e) / (k_e @ k_e)
    assert torch.allclose(update.dense(llama.down_name(LAYER)), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_released_variant_carries_the_difference_of_the_outputs(llama, fact, templates):
    rows = [activations(llama, fact, template) for template in templates]
    k_e = torch.stack([key for key, _ in rows]).mean(0)
    outputs = torch.stack([value for _, value in rows])
    name = llama.down_name(LAYER)
    paper, released = (
        RRome(LAYER, variant=variant, **STEPS)(llama, [fact], Prepared(templates), {}).delta.dense(name)
        for variant in ("paper", "released")
    )
    extra = torch.outer(outputs[0] - outputs.mean(0), k_e) / (k_e @ k_e)
    assert torch.allclose(released - paper, extra, atol=1e-4 * float(extra.abs().max()))
    assert float(extra.norm()) > 1e-3 * float(paper.norm())


def test_rome_leaves_the_mean_key_short_of_the_shift(llama, fact, templates):
    """The asymmetry that R-ROME mends: ROME maps the mean key to delta (k_bar.u)/(k.u)."""
    keys = torch.stack([activations(llama, fact, template)[0] for template in templates])
    edit = Rome(LAYER, **STEPS)(llama, [fact], Prepared(templates), {})
    mean, u = keys.mean(0), keys.mean(0) / keys.mean(0).norm()
    shift = (edit.delta.dense(llama.down_name(LAYER)) @ mean).norm()
    expected = edit.record["delta_norm"] * float((mean @ u) / (keys[0] @ u))
    assert float(shift) == pytest.approx(expected, rel=1e-4)


def test_sampled_keys_need_sampled_contexts(llama, fact):
    with pytest.raises(CollateralError, match="keys is 'sampled', but there are no sampled contexts"):
        RRome(LAYER, keys="sampled", **STEPS)(llama, [fact], Prepared(("{}",)), {})
