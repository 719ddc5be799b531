"""Sharing contexts and dropping rows changes how much is computed, and no answer."""

from contextlib import contextmanager

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from collateral.evaluation.lm.greedy_generation import StopRule, generate_greedily
from collateral.evaluation.lm.prefix_tree import SHARED, Row, Text, pack_rows, plan_rows
from collateral.evaluation.lm.shared_prefix_lm import SharedPrefixLM
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
    mine = SharedPrefixLM(model, batch_size).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, batch_size).loglikelihood(asked, disable_tqdm=True))


def test_perplexities_are_those_of_lm_eval(model):
    asked = instances("loglikelihood_rolling", [(f"{ONE} {TWO} " * n,) for n in (1, 3, 30)])
    mine = SharedPrefixLM(model, 2).loglikelihood_rolling(asked, disable_tqdm=True)
    theirs = plain(model, 2).loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine == pytest.approx(theirs, rel=1e-5)


def test_a_context_that_the_model_cannot_take_loses_its_beginning(model):
    asked = instances("loglikelihood", [(f"{ONE} " * 200, " sleeps"), (f"{ONE} " * 200, " is a river")])
    mine = SharedPrefixLM(model, 4).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, 4).loglikelihood(asked, disable_tqdm=True))


def test_each_option_sees_its_context_and_itself():
    """Worked by hand: context 1 2; options 3 4 and 5 6 7, whose last tokens are only predicted; then padding."""
    row = Row((Text(0, (1, 2, 3), (3, 4)), Text(1, (1, 2, 5, 6), (5, 6, 7))))
    longer = Row((Text(2, (9, 9, 9, 9, 9), (8,)),))
    batch = pack_rows([row, longer], 0, torch.float32, torch.device("cpu"))
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


def test_what_two_options_begin_with_is_in_the_row_once():
    """Worked by hand: context 1; options 2 3 4 and 2 3 5 6 part behind 3; option 7 has nothing but the context."""
    (row,) = plan_rows([(None, [1], [2, 3, 5, 6]), (None, [1], [7]), (None, [1], [2, 3, 4])], 100)
    assert [text.number for text in row.texts] == [1, 2, 0]
    batch = pack_rows([row], 0, torch.float32, torch.device("cpu"))
    assert batch.ids.tolist() == [[1, 2, 3, 5]]
    assert batch.positions.tolist() == [[0, 1, 2, 3]]
    assert (batch.mask[0, 0] == 0).int().tolist() == torch.ones(4, 4).tril().int().tolist()
    assert batch.reads.tolist() == [[0, 0], [0, 0], [0, 1], [0, 2], [0, 0], [0, 1], [0, 2], [0, 3]]
    assert batch.targets.tolist() == [7, 2, 3, 4, 2, 3, 5, 6]


def test_questions_with_the_same_examples_share_a_row():
    examples = list(range(10, 50))
    asked = [(None, [*examples, n, 5], [6, 7]) for n in (1, 2)] + [(None, [90, 91, 92], [6])]
    rows = plan_rows(asked, 1000)
    assert [[text.number for text in row.texts] for row in rows] == [[0, 1], [2]]
    assert rows[0].tokens() == 40 + 3 + 3
    mask = pack_rows(rows[:1], 0, torch.float32, torch.device("cpu")).mask[0, 0] == 0
    assert mask[45].nonzero()[:, 0].tolist() == [*range(40), 43, 44, 45]


def test_rows_are_shared_up_to_a_length_and_the_longest_come_first():
    def numbers(requests, most):
        return [[text.number for text in row.texts] for row in plan_rows(requests, most)]

    assert numbers([(None, [1, 2], [3, 4]), (None, [1, 2], [5]), (None, [7], [3])], 100) == [[1, 0], [2]]
    windows = [(None, [0], [1] * SHARED), (None, [0], [2] * SHARED)]
    assert numbers(windows, 1000) == [[0], [1]]
    many = [(None, [*range(100), n], [*range(90)]) for n in range(4)]  # 190 tokens, of which 100 are shared
    assert numbers(many, 1000) == [[0, 1, 2], [3]]
    assert numbers(many, 200) == [[0], [1], [2], [3]]
    cut = [(None, [1, 2, 3, 4], [5, 6]), (None, [1, 2, 3, 4], [5])]
    assert [row.texts[0].ids for row in plan_rows(cut, 4)] == [(1, 2, 3, 4), (2, 3, 4, 5)]


@pytest.mark.parametrize("until", [["\n"], ["e", "zz"], []])
def test_generated_texts_are_those_of_lm_eval(model, until):
    """Rows that end early leave the batch; the others go on from their own keys and values."""
    asked = [
        (text, {"until": list(until), "max_gen_toks": 12, "do_sample": False})
        for text in (ONE, TWO, "The", "A b")
    ]
    asked += [(ONE, {"until": list(until), "max_gen_toks": 3})]
    mine = SharedPrefixLM(model, 3).generate_until(instances("generate_until", asked), disable_tqdm=True)
    theirs = plain(model, 3).generate_until(instances("generate_until", asked), disable_tqdm=True)
    assert mine == theirs
    assert any(mine)


@contextmanager
def shapes_of(model):
    """Collect (rows, columns) of every pass."""
    seen = []
    handle = model.network.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    yield seen
    handle.remove()


def test_what_all_contexts_of_a_batch_begin_with_is_generated_from_once(model):
    examples = f"{ONE} sleeps. " * 2
    until = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    asked = instances(
        "generate_until", [(f"{examples}{end}", until) for end in ("The", "A b c", "Merlin is a")]
    )
    with shapes_of(model) as seen:
        mine = SharedPrefixLM(model, 3).generate_until(asked, disable_tqdm=True)
    assert mine == plain(model, 3).generate_until(asked, disable_tqdm=True)
    shared = len(model.tokenizer(examples)["input_ids"])
    assert seen[0][0] == 1
    assert abs(seen[0][1] - shared) <= 1
    assert seen[1][0] == 3
    assert seen[1][1] < shared
    assert sum(columns > 20 for _, columns in seen) == 1


def test_a_row_that_has_ended_leaves_its_batch(model):
    """Worked by hand: texts of 9, 1, 1 and 2 tokens in batches of two, the longest contexts first."""
    contexts = [[5, 6, 7, 8], [9, 10, 11], [12, 13], [14]]
    limits = {0: 9, 1: 1, 2: 1, 3: 2}
    alone = [
        next(generate_greedily(model, [context], StopRule(str, (), frozenset(), limits[i]), 1)).tokens
        for i, context in enumerate(contexts)
    ]

    class Each(StopRule):
        def is_met(self, tokens):
            return any(tokens == text for text in alone)

    with shapes_of(model) as seen:
        rows = list(generate_greedily(model, contexts, Each(str, (), frozenset(), 99), 2))
    assert {row.number: row.tokens for row in rows} == dict(enumerate(alone))
    assert [row.number for row in rows] == [1, 0, 2, 3]
    assert seen == [(2, 4), *[(1, 1)] * 8, (2, 2), (1, 1)]


def test_sampling_is_left_to_lm_eval(model):
    asked = [(ONE, {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0})] * 2
    texts = []
    for make in (SharedPrefixLM, lambda own, size: plain(own, size)):
        torch.manual_seed(0)
        texts.append(make(model, 2).generate_until(instances("generate_until", asked), disable_tqdm=True))
    assert texts[0] == texts[1]


def test_answers_come_in_the_order_of_the_requests(model):
    asked = instances("loglikelihood", QUESTIONS)
    lm = SharedPrefixLM(model, 2)
    forward = lm.loglikelihood(asked, disable_tqdm=True)
    backward = lm.loglikelihood(asked[::-1], disable_tqdm=True)
    assert_same(forward, backward[::-1])


def test_a_sliding_window_that_ends_within_a_text_counts():
    """Mistral's attention sees its last tokens only: a shared row's mask would show it all of them."""
    model = tiny_model("mistral")
    asked = instances("loglikelihood", [(f"{ONE} {TWO} {ONE}", " sleeps"), (f"{ONE} {TWO} {ONE}", " waits")])
    whole = SharedPrefixLM(model, 2).loglikelihood(asked, disable_tqdm=True)
    model.network.config.sliding_window = 8
    mine = SharedPrefixLM(model, 2).loglikelihood(asked, disable_tqdm=True)
    assert_same(mine, plain(model, 2).loglikelihood(asked, disable_tqdm=True))
    assert abs(mine[0][0] - whole[0][0]) > 1e-3
    until = {"until": [], "max_gen_toks": 12, "do_sample": False}
    texts = instances("generate_until", [(f"{ONE} {TWO} {ONE}", until), (TWO, until)])
    mine = SharedPrefixLM(model, 2).generate_until(texts, disable_tqdm=True)
    assert mine == plain(model, 2).generate_until(texts, disable_tqdm=True)
