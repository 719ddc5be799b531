"""lm-eval on a model with a codebook: HFLM's numbers where it is empty, the edited model's where a prompt hits."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from collateral.editing.method import Prepared
from collateral.editing.methods.grace import Grace
from collateral.evaluation.lm.adapter_lm import AdaptedLM
from tiny import tiny_model

CONTEXTS = [
    "The capital of Avalon is",
    "Merlin lives in",
    "Because I think, you think. Therefore the sea is",
    "A",
]
CONTINUATIONS = [" Benwick town", " Camelot near the river", " blue", " Caerleon"]
GRACE = Grace(layer=1, epsilon=0.01, n_iter=20, edit_lr=0.3)


def requests(kind, arguments):
    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def likelihood_requests():
    pairs = [(context, continuation) for context in CONTEXTS for continuation in CONTINUATIONS]
    # the same tokens, cut elsewhere: HFLM may score both by one pass, a codebook must not
    return requests("loglikelihood", [*pairs, ("The capital of Avalon", " is"), ("", " the sea")])


def rolling_requests():
    return requests("loglikelihood_rolling", [(text,) for text in (*CONTEXTS, "The sea is blue. " * 40)])


def generation_requests():
    settings = {"until": ["."], "max_gen_toks": 4, "do_sample": False}
    return requests("generate_until", [(context, settings) for context in CONTEXTS])


def hflm(model, batch_size):
    return HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size, dtype=None)


@pytest.fixture
def edited(llama, fact):
    return GRACE(llama, [fact], Prepared(("{}",), seed=1), {}).state


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_an_empty_codebook_gives_the_numbers_of_hflm(model, batch_size):
    own, theirs = AdaptedLM(model, batch_size), hflm(model, batch_size)
    with GRACE.attach(model, {}):
        pairs = zip(
            own.loglikelihood(likelihood_requests(), disable_tqdm=True),
            theirs.loglikelihood(likelihood_requests(), disable_tqdm=True),
            strict=True,
        )
        for (mine, greedy), (wanted, wanted_greedy) in pairs:
            assert mine == pytest.approx(wanted, rel=1e-4)
            assert greedy == wanted_greedy
            assert type(mine) is float
            assert type(greedy) is bool
        rolling = own.loglikelihood_rolling(rolling_requests(), disable_tqdm=True)
        wanted = theirs.loglikelihood_rolling(rolling_requests(), disable_tqdm=True)
        assert rolling == pytest.approx(wanted, rel=1e-4)
        generated = own.generate_until(generation_requests(), disable_tqdm=True)
        assert generated == theirs.generate_until(generation_requests(), disable_tqdm=True)


def test_off_key_prompts_keep_the_numbers_of_the_unedited_model(llama, edited):
    own = AdaptedLM(llama, 4)
    asked = [one for one in likelihood_requests() if one.args[0] != CONTEXTS[0]]
    before = own.loglikelihood(asked, disable_tqdm=True)
    with GRACE.attach(llama, edited):
        assert own.loglikelihood(asked, disable_tqdm=True) == before


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_edited_prompt_scores_as_one_row_with_the_value_put_in_by_hand(llama, edited, batch_size):
    """Contexts of other lengths stand beside it; its end is found all the same."""
    context = llama.tokenizer(CONTEXTS[0])["input_ids"]
    wanted = []
    for continuation in CONTINUATIONS:
        ids = llama.tokenizer(CONTEXTS[0] + continuation)["input_ids"]
        target = ids[len(context) :]

        def swap(_, __, output):
            output = output.clone()
            output[0, len(context) - 1] = edited["values"][0]
            return output

        handle = llama.down(1).register_forward_hook(swap)
        with torch.no_grad():
            log_p = llama.network(torch.tensor([ids[:-1]])).logits[0, len(context) - 1 :].log_softmax(-1)
        handle.remove()
        wanted.append(float(sum(log_p[j, token] for j, token in enumerate(target))))
    with GRACE.attach(llama, edited):
        found = AdaptedLM(llama, batch_size).loglikelihood(likelihood_requests(), disable_tqdm=True)
        plain = hflm(llama, batch_size).loglikelihood(likelihood_requests(), disable_tqdm=True)
    assert [one for one, _ in found[: len(CONTINUATIONS)]] == pytest.approx(wanted, rel=1e-4)
    assert abs(plain[0][0] - wanted[0]) > 0.1, "HFLM itself asks the codebook at the row's end"


def test_generation_starts_at_the_edited_prompt(llama, edited):
    ids = llama.tokenizer(CONTEXTS[0])["input_ids"]
    length = len(ids)
    for _ in range(4):

        def swap(_, __, output):
            output = output.clone()
            output[0, length - 1] = edited["values"][0]
            return output

        handle = llama.down(1).register_forward_hook(swap)
        with torch.no_grad():
            ids = [*ids, int(llama.network(torch.tensor([ids])).logits[0, -1].argmax())]
        handle.remove()
    unedited = AdaptedLM(llama, 4).generate_until(generation_requests(), disable_tqdm=True)
    with GRACE.attach(llama, edited):
        found = AdaptedLM(llama, 4).generate_until(generation_requests(), disable_tqdm=True)
    assert found[0] == llama.tokenizer.decode(ids[length:]).split(".")[0]
    assert found[0] != unedited[0]
    assert found[1:] == unedited[1:]


def test_long_contexts_are_cut_on_the_left_as_hflm_cuts_them(caplog):
    model = tiny_model("llama")
    long = requests("loglikelihood", [("The sea is blue. " * 60, " Camelot"), ("Merlin", " lives in" * 15)])
    own, theirs = AdaptedLM(model, 2), hflm(model, 2)
    assert own.max_length == 128
    found = own.loglikelihood(long, disable_tqdm=True)
    wanted = theirs.loglikelihood(long, disable_tqdm=True)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in wanted], rel=1e-4)


def test_results_reach_the_cache_under_hflms_keys(llama):
    own = AdaptedLM(llama, 3)
    seen = []
    own.cache_hook.add_partial = lambda kind, key, answer: seen.append((kind, key, answer))
    answers = own.loglikelihood(likelihood_requests(), disable_tqdm=True)
    wanted = {
        ("loglikelihood", one.args, answer)
        for one, answer in zip(likelihood_requests(), answers, strict=True)
    }
    assert set(seen) == wanted
