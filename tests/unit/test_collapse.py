"""A collapse is seen in scores and answers, and from its first checkpoint on."""

import math

import polars as pl
import pytest

from collateral.analysis.tables import collapse
from collateral.analysis.tables import collect as tables
from collateral.evaluation.harness import answer_of, write_not_evaluated
from collateral.io.atomic import write_json

SETTINGS = {"perplexity_ratio": 10, "one_answer": 0.95}
EDITED = {"model": "m", "dataset": "d", "seed": 0, "editor": "rome"}
BEFORE = {"model": "m", "dataset": None, "seed": None, "editor": "unedited", "edits": 0}


def scores(*rows: dict) -> pl.DataFrame:
    """Return a table of abilities from rows of task, metric, value and what differs."""
    whole = [
        {
            **BEFORE,
            "suite": "s",
            "ability": row["task"],
            "stderr": 0.05,
            "n": 20,
            "chance": None,
            "higher_is_better": True,
            "primary": True,
            **row,
        }
        for row in rows
    ]
    return pl.DataFrame(whole, schema_overrides={**tables.KEY, "chance": pl.Float64, "value": pl.Float64})


def answers(*given: tuple[dict, str]) -> pl.DataFrame:
    """Return items of task `t`: one for each character of each answer string."""
    rows = [
        {**who, "suite": "s", "task": "t", "doc_id": i, "metric": "acc", "score": 1.0, "answer": mark}
        for who, text in given
        for i, mark in enumerate(text)
    ]
    schema = {**tables.KEY, "suite": pl.String, "task": pl.String, "doc_id": pl.Int32, "metric": pl.String}
    return pl.DataFrame(rows, schema={**schema, "score": pl.Float64, "answer": pl.String})


NO_ITEMS = answers()


def reasons(abilities: pl.DataFrame, items: pl.DataFrame = NO_ITEMS) -> list[str]:
    return collapse.find_signs(abilities, items, SETTINGS)["reason"].to_list()


def perplexity(value: float, **who) -> dict:
    return {
        "task": "text",
        "metric": "word_perplexity",
        "value": value,
        "higher_is_better": False,
        "stderr": None,
        **who,
    }


@pytest.mark.parametrize(("value", "found"), [(299.9, 0), (300.0, 1)])
def test_ten_times_the_perplexity_is_a_collapse(value, found):
    assert len(reasons(scores(perplexity(30.0), perplexity(value, **EDITED, edits=5)))) == found


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_a_collapse(value):
    found = reasons(scores(perplexity(30.0), perplexity(value, **EDITED, edits=5)))
    assert "word_perplexity of text is not finite" in found


def test_one_item_that_is_not_finite_is_a_collapse():
    items = answers((BEFORE, "0101"), ({**EDITED, "edits": 5}, "0101"))
    spoiled = items.with_columns(
        score=pl.when((pl.col("edits") == 5) & (pl.col("doc_id") == 2)).then(math.nan).otherwise("score")
    )
    assert reasons(scores(perplexity(30.0)), spoiled) == ["acc of t is not finite"]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("01" * 10, "0" * 19 + "1", 1),  # 19 of 20 = .95
        ("01" * 10, "0" * 18 + "11", 0),
        ("0" * 20, "0" * 20, 0),  # the unedited model has but one answer as well
        ("01" * 4, "0" * 8, 0),  # too few items
    ],
)
def test_the_same_answer_to_nearly_all_items_is_a_collapse(before, after, found):
    items = answers((BEFORE, before), ({**EDITED, "edits": 5}, after))
    assert len(reasons(scores(perplexity(30.0)), items)) == found


def accuracy(task: str, value: float, chance: float, **who) -> dict:
    return {"task": task, "metric": "acc", "value": value, "chance": chance, **who}


@pytest.mark.parametrize(("second", "found"), [(0.50, ["at or below chance: a, b"]), (0.51, [])])
def test_a_chain_has_collapsed_when_all_that_it_could_do_is_at_chance(second, found):
    """Task c, .30 ± .05 before any edit against a chance of .25, never showed an ability: it does not count."""
    before = [accuracy("a", 0.6, 0.25), accuracy("b", 0.8, 0.5), accuracy("c", 0.30, 0.25)]
    now = {**EDITED, "edits": 5}
    after = [
        accuracy("a", 0.2, 0.25, **now),
        accuracy("b", second, 0.5, **now),
        accuracy("c", 0.9, 0.25, **now),
    ]
    assert reasons(scores(*before, *after)) == found


def test_a_chain_stays_collapsed_and_its_later_checkpoints_say_since_when(tmp_path):
    table = scores(
        perplexity(30.0),
        *(perplexity(value, **EDITED, edits=edits) for edits, value in ((1, 31.0), (5, 400.0), (10, 40.0))),
    )
    path = tmp_path / "results/edited/m/d/seed-0/rome/edits-0020/abilities/s.json"
    path.parent.mkdir(parents=True)
    items = path.with_name("s.items.parquet")
    write_not_evaluated({"collapsed_at": 5, "reasons": ["x"]}, path, items)
    assert tables.collect_abilities([path], {}).is_empty()
    assert tables.collect_items([items]).is_empty()
    skipped = tables.collect_skipped([path])
    found = collapse.find_collapses(table, NO_ITEMS, skipped, SETTINGS)
    assert found.select("edits", "collapsed", "first", "evaluated").rows() == [
        (1, False, False, True),
        (5, True, True, True),
        (10, True, False, True),
        (20, True, False, False),
    ]
    assert found["reasons"].to_list()[1] == "word_perplexity of text is 13.3 times the unedited model's"
    assert found["reasons"].to_list()[3] == "not evaluated: collapsed at 5 edits"


def test_results_with_scores_are_not_skipped_ones(tmp_path):
    path = tmp_path / "results/edited/m/d/seed-0/rome/edits-0020/abilities/s.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"results": {}, "n-samples": {}})
    assert tables.collect_skipped([path]).is_empty()


def test_a_verdict_is_kept_by_the_checkpoints_after_it():
    calm = scores(perplexity(30.0), perplexity(31.0, **EDITED, edits=10))
    wild = scores(perplexity(30.0), perplexity(3100.0, **EDITED, edits=10))
    earlier = {"collapsed_at": 5, "reasons": ["x"]}
    fine = {"collapsed_at": None, "reasons": []}
    assert collapse.judge_chain(calm, NO_ITEMS, earlier, 10, SETTINGS) == earlier
    assert collapse.judge_chain(calm, NO_ITEMS, fine, 10, SETTINGS) == fine
    assert collapse.judge_chain(wild, NO_ITEMS, fine, 10, SETTINGS)["collapsed_at"] == 10


@pytest.mark.parametrize(
    ("responses", "answer"),
    [
        ([(-3.0, False), (-1.0, True), (-2.0, False)], "1"),
        (["Paris, and" + "x" * 300], "Paris, and" + "x" * 190),
        ([(-3.0, False)], None),
        ([-12.5], None),
        ([], None),
    ],
)
def test_the_answer_is_an_option_or_a_text(responses, answer):
    assert answer_of(responses) == answer
