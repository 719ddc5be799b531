"""Where the subject ends and the target begins, whatever stands around them."""

import pytest
import torch

from collateral.data.facts import Fact
from collateral.errors import CollateralError
from collateral.models.tokenization import pad, tokenize
from tiny import tiny_tokenizer


def text_of(tokenizer, row, start, stop=None):
    return tokenizer.decode(list(row.ids[start:stop]))


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of {} is", "Avalon"),
        ("{} is a place", "Avalon"),
        ("Is it ({})?", "Round Table"),
        ("Avalonia is not {}", "Avalon"),
        ("Where is {}", "Zürich 東京"),
    ],
)
def test_subject_last_token_ends_where_the_subject_ends(prompt, subject):
    tokenizer = tiny_tokenizer()
    fact = Fact("x", subject, "r", prompt, "new", "old")
    row = tokenize(tokenizer, fact.text(), "new", fact.subject_span())
    upto = text_of(tokenizer, row, 0, row.subject_last + 1)
    assert upto == fact.text()[: fact.subject_span()[1]]


def test_first_occurrence_is_the_subject_when_it_occurs_twice():
    fact = Fact("x", "Avalon", "r", "{} and Avalon", "new", "old")
    assert fact.subject_span() == (0, 6)
    assert fact.text("Yes. {}") == "Yes. Avalon and Avalon"
    assert fact.subject_span("Yes. {}") == (5, 11)


def test_target_gets_exactly_one_leading_space():
    tokenizer = tiny_tokenizer()
    once = tokenize(tokenizer, "The capital is", "Camelot")
    assert once == tokenize(tokenizer, "The capital is", " Camelot")
    assert text_of(tokenizer, once, once.prompt_length) == " Camelot"
    assert tokenizer.decode(list(once.ids[: once.prompt_length])) == "The capital is"


def test_subject_without_a_token_is_an_error():
    with pytest.raises(CollateralError, match="no token covers the subject"):
        tokenize(tiny_tokenizer(), "abc", "x", (2, 2))


def test_pad_lines_up_the_given_columns_and_counts_real_positions():
    batch = pad([[5, 6, 7], [8, 9]], [2, 0], 0, torch.device("cpu"))
    assert batch.ids.tolist() == [[5, 6, 7, 0], [0, 0, 8, 9]]
    assert batch.mask.tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]
    assert batch.positions.tolist() == [[0, 1, 2, 2], [0, 0, 0, 1]]
