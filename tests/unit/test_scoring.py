"""Sharing contexts and dropping rows changes how much is computed, and no answer."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from collateral.scoring import SHARED, Row, SharedContextLM, packed, rows_of
from tiny import tiny_model

ONE, TWO = "Avalon lies beyond the western sea. Its king", "Merlin"
QUESTIONS = [
    *(
        (ONE, f" {option}")
        for option in ("sleeps", "is a river of grass and stone", "sleeps in Camelot", "x")
    ),
    *((TWO, f" {option}") for option in ("a", "b", "c")),
    (ONE, " waits"),
]


def instances(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]


def plain(model, batch_size):
    return HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size, dtype=None)


def assert_same(mine, theirs):
    for (own, greedy), (other, expected) in zip(mine, theirs, strict=True):
        assert own == pytest.approx(other, abs=1e-4)
        assert greedy == expected


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_options_of_one_context_have_the_likelihoods_of_rows_of_their_own(model, batch_size):
    asked = instances("loglikelihood", QUESTIONS)
    mine = SharedContextLM(model, batch_size).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, batch_size).loglikelihood(asked, disable_tqdm=True))


def test_perplexities_are_those_of_lm_eval(model):
    asked = instances("loglikelihood_rolling", [(f"{ONE} {TWO} " * n,) for n in (1, 3, 30)])
    mine = SharedContextLM(model, 2).loglikelihood_rolling(asked, disable_tqdm=True)
    theirs = plain(model, 2).loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine == pytest.approx(theirs, rel=1e-5)


def test_a_context_that_the_model_cannot_take_loses_its_beginning(model):
    asked = instances("loglikelihood", [(f"{ONE} " * 200, " sleeps"), (f"{ONE} " * 200, " is a river")])
    mine = SharedContextLM(model, 4).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, 4).loglikelihood(asked, disable_tqdm=True))


def test_each_option_sees_its_context_and_itself():
    """Worked by hand: context 1 2; options 3 4 and 5 6 7, whose last tokens are only predicted; then padding."""
    row = Row((1, 2), ((3, 4), (5, 6, 7)), (0, 1))
    longer = Row((9, 9, 9, 9, 9), ((8,),), (2,))
    batch = packed([row, longer], 0, torch.float32, torch.device("cpu"))
    assert batch.ids.tolist() == [[1, 2, 3, 5, 6], [9, 9, 9, 9, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 3, 4]]
    seen = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert (batch.mask[0, 0] == 0).int().tolist() == seen
    assert batch.reads.tolist() == [[0, 1], [0, 2], [0, 1], [0, 3], [0, 4], [1, 4]]
    assert batch.targets.tolist() == [3, 4, 5, 6, 7, 8]


def test_rows_are_shared_up_to_a_length_and_the_longest_come_first():
    short = [(None, [1, 2], [3, 4]), (None, [1, 2], [5]), (None, [7], [3])]
    assert rows_of(short, 100) == [Row((1, 2), ((3, 4), (5,)), (0, 1)), Row((7,), ((3,),), (2,))]
    windows = [(None, [0], [1] * SHARED), (None, [0], [2] * SHARED)]
    assert [row.requests for row in rows_of(windows, 1000)] == [(0,), (1,)]
    cut = [(None, [1, 2, 3, 4], [5, 6]), (None, [1, 2, 3, 4], [5])]
    assert [row.context for row in rows_of(cut, 4)] == [(1, 2, 3, 4), (2, 3, 4)]


@pytest.mark.parametrize("until", [["\n"], ["e", "zz"], []])
def test_generated_texts_are_those_of_lm_eval(model, until):
    """Rows that end early leave the batch; the others go on from their own keys and values."""
    asked = [
        (text, {"until": list(until), "max_gen_toks": 12, "do_sample": False})
        for text in (ONE, TWO, "The", "A b")
    ]
    asked += [(ONE, {"until": list(until), "max_gen_toks": 3})]
    mine = SharedContextLM(model, 3).generate_until(instances("generate_until", asked), disable_tqdm=True)
    theirs = plain(model, 3).generate_until(instances("generate_until", asked), disable_tqdm=True)
    assert mine == theirs
    assert any(mine)


def test_sampling_is_left_to_lm_eval(model):
    asked = [(ONE, {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0})] * 2
    texts = []
    for make in (SharedContextLM, lambda own, size: plain(own, size)):
        torch.manual_seed(0)
        texts.append(make(model, 2).generate_until(instances("generate_until", asked), disable_tqdm=True))
    assert texts[0] == texts[1]


def test_answers_come_in_the_order_of_the_requests(model):
    asked = instances("loglikelihood", QUESTIONS)
    lm = SharedContextLM(model, 2)
    forward = lm.loglikelihood(asked, disable_tqdm=True)
    backward = lm.loglikelihood(asked[::-1], disable_tqdm=True)
    assert_same(forward, backward[::-1])


def test_a_sliding_window_that_ends_within_a_text_counts():
    """Mistral's attention sees its last tokens only: a shared row's mask would show it all of them."""
    model = tiny_model("mistral")
    asked = instances("loglikelihood", [(f"{ONE} {TWO} {ONE}", " sleeps"), (f"{ONE} {TWO} {ONE}", " waits")])
    whole = SharedContextLM(model, 2).loglikelihood(asked, disable_tqdm=True)
    model.network.config.sliding_window = 8
    mine = SharedContextLM(model, 2).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, 2).loglikelihood(asked, disable_tqdm=True))
    assert abs(mine[0][0] - whole[0][0]) > 1e-3
    until = {"until": [], "max_gen_toks": 12, "do_sample": False}
    texts = instances("generate_until", [(f"{ONE} {TWO} {ONE}", until), (TWO, until)])
    mine = SharedContextLM(model, 2).generate_until(texts, disable_tqdm=True)
    assert mine == plain(model, 2).generate_until(texts, disable_tqdm=True)
