"""The batched inner optimisation against a plain one: each fact alone, full forward passes, torch's own Adam."""

import statistics
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from collateral.editing.algorithms.value_optimization import TOKENS_AT_ONCE, Objective, optimize_targets
from collateral.editing.method import UnstableEditError
from collateral.models.hooks import capture, get_hidden
from collateral.models.tokenization import tokenize

LAYER = 2


def plain(model, fact, templates, objective):
    """delta of each site (sites x d) and the losses, written as the paper's sum."""
    modules = {"mlp": model.mlp, "block": model.block, "attention": model.attention}
    chosen = [modules[site](LAYER) for site in objective.sites]
    rows = [tokenize(model.tokenizer, fact.text(t), fact.target_new, fact.subject_span(t)) for t in templates]
    essence = tokenize(model.tokenizer, f"{fact.subject} is a", subject=(0, len(fact.subject)))
    h_0 = []
    for module in chosen:
        with torch.no_grad(), capture(module) as seen:
            model.network(torch.tensor([rows[0].ids]))
        h_0.append(seen["output"][0, rows[0].subject_last])
    h_0 = torch.stack(h_0)
    delta = torch.zeros_like(h_0, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=objective.learning_rate)

    def log_p(ids, where):
        def adding(number):
            def add(_, __, output):
                shifted = get_hidden(output).clone()
                shifted[0, where] = shifted[0, where] + delta[number]
                return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

            return add

        handles = [m.register_forward_hook(adding(i)) for i, m in enumerate(chosen)]
        result = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        for handle in handles:
            handle.remove()
        return result

    first, losses, factor = None, [], objective.nll_factor
    for step in range(objective.steps):
        nll, right = 0.0, True
        for row in rows:
            found = log_p(row.ids[:-1], row.subject_last)[row.prompt_length - 1 :]
            nll = nll - torch.stack([found[j, t] for j, t in enumerate(row.target)]).mean() / len(rows)
            right &= found.argmax(-1).tolist() == list(row.target)
        now = log_p(essence.ids, essence.subject_last)[essence.subject_last]
        first = now.detach() if first is None else first
        drift = objective.kl_factor * (now.exp() * (now - first)).sum()
        decay = sum(delta[i].norm() / h_0[i].norm() ** 2 for i in range(len(chosen)))
        loss = factor * nll + drift + objective.weight_decay * decay
        losses.append(float(loss.detach()))
        if losses[-1] < objective.stop_loss or step == objective.steps - 1:
            break
        if objective.relaxed:
            factor = 0.1 * objective.nll_factor if right else objective.nll_factor
            if right and float(drift) <= 0.01:
                break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for i in range(len(chosen)):
                limit = objective.clamp_factor * h_0[i].norm()
                if delta[i].norm() > limit:
                    delta[i] *= limit / delta[i].norm()
    return delta.detach(), losses


CASES = {
    "mlp": Objective(8, 0.5, 0.5, 4.0, 0.0625),
    "block": Objective(8, 0.5, 0.5, 0.75, 0.0625, sites=("block",)),
    "attention and mlp": Objective(8, 0.5, 0.5, 2.0, 0.0625, sites=("attention", "mlp"), relaxed=True),
}


def ending_at_different_steps(model, facts, templates, objective):
    """The objective with a stop_loss that some facts reach early and others late or never."""
    losses = [optimize_targets(model, [f], templates, LAYER, objective)[0][0].losses for f in facts]
    return replace(objective, stop_loss=statistics.median(loss[4] for loss in losses) + 1e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [1, 10_000], ids=["one fact a pass", "all facts a pass"])
def test_a_batch_equals_each_fact_alone(model, facts, templates, case, budget, monkeypatch):
    """Whatever the batch, each fact gets its own Adam, clamp, end and result."""
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", budget)
    facts = facts[:4]
    objective = ending_at_different_steps(model, facts, templates, CASES[case])
    targets, _ = optimize_targets(model, facts, templates, LAYER, objective)
    lengths = set()
    for fact, target in zip(facts, targets, strict=True):
        delta, losses = plain(model, fact, templates, objective)
        assert len(target.losses) == len(losses)
        assert target.losses == pytest.approx(losses, rel=2e-3, abs=2e-4)
        assert float((target.delta - delta[-1]).norm()) <= 1e-2 * float(delta[-1].norm())
        lengths.add(len(losses))
    if model.network.config.model_type in ("llama", "gpt_neox"):  # the other tiny models hardly move
        assert len(lengths) > 1, "no fact left the batch early: the case does not test what it should"


def test_finished_facts_leave_the_batch(llama, facts, templates, monkeypatch):
    """Later passes have fewer rows: those of the facts that have not ended."""
    objective = ending_at_different_steps(llama, facts, templates, CASES["mlp"])
    widths = []
    original = type(llama.network.base_model).forward

    def counting(self, *args, **kwargs):
        widths.append(len(kwargs["input_ids"]))
        return original(self, *args, **kwargs)

    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 10_000)
    monkeypatch.setattr(type(llama.network.base_model), "forward", counting)
    targets, _ = optimize_targets(llama, facts, templates, LAYER, objective)
    rows = len(templates) + 1
    steps = [len(target.losses) for target in targets]
    assert widths[0] == rows * len(facts)
    for step, width in enumerate(widths[1:]):
        assert width == rows * sum(1 for one in steps if one > step)
    assert min(steps) < max(steps)


def test_relaxed_objective_ends_when_the_answer_is_said_and_nothing_drifts(llama, fact, templates):
    """PMET: once every target token is the argmax, the likelihood counts a tenth, and drift <= 0.01 ends it."""
    said = greedy(llama, fact)
    known = replace(fact, target_new=said)
    objective = Objective(8, 0.1, 0.0, 2.0, 0.0625, sites=("attention", "mlp"), relaxed=True)
    targets, _ = optimize_targets(llama, [known], ("{}",), LAYER, objective)
    assert len(targets[0].losses) == 1
    insisting = replace(objective, relaxed=False)
    targets, _ = optimize_targets(llama, [known], ("{}",), LAYER, insisting)
    assert len(targets[0].losses) == 8


def greedy(model, fact):
    """A one-token answer that the model gives anyway, as text that tokenises back to it."""
    row = tokenize(model.tokenizer, fact.text(), "sea")
    logits = model.network(torch.tensor([row.ids[: row.prompt_length]])).logits[0, -1]
    for token in logits.argsort(descending=True).tolist():
        text = model.tokenizer.decode([token])
        if (
            text.startswith(" ")
            and len(text) > 2
            and tokenize(model.tokenizer, fact.text(), text).target == (token,)
        ):
            head = model.network.get_output_embeddings().weight.data
            head[token] = head[int(logits.argmax())] * 1.001 if int(logits.argmax()) != token else head[token]
            return text.strip()
    raise AssertionError("no token of the tiny tokenizer is a word")


@pytest.mark.parametrize("case", ["mlp", "block"])
def test_bfloat16_weights_give_a_float32_shift(case, facts, templates):
    from tiny import tiny_model

    model = tiny_model("llama", torch.bfloat16)
    targets, _ = optimize_targets(model, facts[:2], templates, LAYER, CASES[case])
    exact, _ = optimize_targets(tiny_model("llama"), facts[:2], templates, LAYER, CASES[case])
    for target, other in zip(targets, exact, strict=True):
        assert target.delta.dtype == torch.float32
        assert functional.cosine_similarity(target.delta, other.delta, dim=0) > 0.7


def test_a_collapsed_model_names_the_fact(llama, facts, templates):
    llama.matrix(llama.down_name(3)).fill_(float("nan"))
    with pytest.raises(UnstableEditError, match=r"fact 'home-4': the loss of the value optimisation is nan"):
        optimize_targets(llama, facts, templates, LAYER, CASES["mlp"])
