"""Efficacy measures against plain forward passes and hand-made cases."""

import pytest
import torch
from transformers import GenerationConfig

from collateral.errors import CollateralError
from collateral.evaluation.efficacy import Prompts, begins_with, measure_fact
from collateral.models.tokenization import tokenize


def plain_score(model, prompt, target):
    """NLL per token, argmax tokens and accuracy by one unpadded pass, token by token."""
    row = tokenize(model.tokenizer, prompt, target)
    with torch.no_grad():
        log_p = model.network(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    nll, best = 0.0, []
    for j, token in enumerate(row.target):
        here = log_p[row.prompt_length - 1 + j]
        nll -= float(here[token]) / len(row.target)
        best.append(int(here.argmax()))
    return nll, tuple(best), sum(a == b for a, b in zip(best, row.target, strict=True)) / len(best)


ASKED = [("The capital of Avalon is", "Camelot"), ("The", "sea is blue and far"), ("Because I", "think")]


def prompts_of(model, asked):
    rows = [tokenize(model.tokenizer, prompt, target) for prompt, target in asked]
    return Prompts(model, [row.ids[: row.prompt_length] for row in rows]), [row.target for row in rows]


def test_scores_of_padded_prompts_equal_plain_ones(model):
    prompts, targets = prompts_of(model, ASKED)
    for (prompt, target), score in zip(ASKED, prompts.score(targets), strict=True):
        nll, best, accuracy = plain_score(model, prompt, target)
        assert score.nll == pytest.approx(nll, abs=2e-5)
        assert score.predicted == best
        assert score.accuracy == accuracy


def test_scoring_and_generating_leave_the_prompts_as_they_were(model):
    prompts, targets = prompts_of(model, ASKED)
    first = prompts.score(targets), prompts.generate(5)
    assert (prompts.score(targets), prompts.generate(5)) == first


def test_generation_is_plain_greedy_decoding(model):
    """Against the library's own generation, prompt by prompt."""
    prompts, _ = prompts_of(model, ASKED)
    for (prompt, _), text in zip(ASKED, prompts.generate(6), strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
        settings = GenerationConfig(do_sample=False, max_new_tokens=6, pad_token_id=0, eos_token_id=0)
        made = model.network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert text == model.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_unedited_model_agrees_with_itself(model, fact):
    before = measure_fact(model, 1, fact, "before", 4, None)
    reference = {(row["fact_id"], row["kind"], row["probe"]): row for row in before}
    now = measure_fact(model, 1, fact, "now", 4, reference)
    assert [row["kind"] for row in now] == ["reliability", "generalization", "locality", "locality"]
    for old, new in zip(before, now, strict=True):
        assert {**old, "when": "now"} == new
    for row in now[2:]:
        assert row["token_agreement"] == 1.0
        assert row["generated_agreement"] is True


def test_preference_compares_the_two_answers(model, fact):
    row = measure_fact(model, 1, fact, "before", 2, None)[0]
    new, _, _ = plain_score(model, fact.text(), fact.target_new)
    true, _, _ = plain_score(model, fact.text(), fact.target_true)
    assert row["prefers_target"] is (new < true)
    local = measure_fact(model, 1, fact, "before", 2, None)[2]
    assert (local["target"], local["other"]) == ("Caerleon", fact.target_new)


def test_generation_is_at_least_as_long_as_the_answer(model, fact):
    short = measure_fact(model, 1, fact, "before", 1, None)[0]["generated"]
    needed = len(tokenize(model.tokenizer, fact.text(), fact.target_new).target)
    assert needed > 1
    assert measure_fact(model, 1, fact, "before", needed, None)[0]["generated"] == short


def test_a_missing_reference_is_an_error(model, fact):
    with pytest.raises(CollateralError, match="no unedited reference for fact 'capital-avalon'"):
        measure_fact(model, 1, fact, "now", 2, {})


@pytest.mark.parametrize(
    ("generated", "target", "right"),
    [
        (" Rome. It is", "Rome", True),
        (" rome", "Rome", True),
        (" Romeo", "Rome", False),
        (" the Rome", "Rome", False),
        ("", "Rome", False),
        (" New York, NY", "New York", True),
    ],
)
def test_begins_with_whole_words(generated, target, right):
    assert begins_with(generated, target) is right
