"""Items in pairs or an error; the verdict of each cell; what is left of each ability; the edit horizon."""

import math

import numpy as np
import polars as pl
import pytest

from collateral.analysis.statistics.comparisons import SCHEMA, compare_pairs
from collateral.analysis.statistics.edit_horizon import estimate_horizons
from collateral.analysis.statistics.inference import Terms, adjust_holm
from collateral.analysis.statistics.normalized import carry_forward, normalize_abilities
from collateral.analysis.statistics.paired_proportions import mcnemar_p, tango_interval
from collateral.analysis.statistics.pairing import pair_items
from collateral.errors import CollateralError
from paired_frames import BEFORE, UNEDITED, WORDS, answers, at, frames, not_evaluated, texts

TERMS = Terms(resamples=400)
RIGHT = [1.0] * 60 + [0.0] * 40


def compare(*checkpoints, collapses=None, terms=TERMS) -> pl.DataFrame:
    tables = frames(*checkpoints)
    return compare_pairs(pair_items(tables["abilities"], tables["ability-items"]), collapses, terms)


def worse(count: int) -> list[float]:
    """The answers with so many of the right ones wrong."""
    return [0.0] * count + RIGHT[count:]


def shift(by: float) -> list[float]:
    """Log-likelihoods that lose about so many nats a word."""
    return [
        ll - words * by * (1 + 0.1 * place)
        for place, (ll, words) in enumerate(zip(BEFORE, WORDS, strict=True))
    ]


def test_a_cell_holds_the_numbers_of_its_items():
    """100 items, of which 20 got worse: -0.2, McNemar 2 / 2^20, Tango's interval."""
    table = compare(answers(UNEDITED, RIGHT), answers(at("rome", 5), worse(20)))
    assert table.schema == pl.Schema(SCHEMA)
    row = table.row(0, named=True)
    assert (row["unedited"], row["edited"], row["n"], row["seeds"]) == (0.6, 0.4, 100, 1)
    assert row["estimate"] == pytest.approx(-0.2)
    assert (row["worse"], row["better"]) == (20, 0)
    assert row["p"] == pytest.approx(2 / 2**20)
    assert row["p"] == row["p_holm"] == pytest.approx(mcnemar_p(20, 0))
    assert (row["low"], row["high"]) == tango_interval(20, 0, 100, 0.05)
    assert (row["scale"], row["margin"], row["interval"], row["test"]) == (
        "difference",
        0.02,
        "tango",
        "mcnemar exact",
    )
    assert (row["verdict"], row["equivalent"]) == ("harm", False)


def test_a_perplexity_is_compared_by_the_log_ratio_per_word():
    """All texts together have 150 words; ln(edited / unedited) = Σ lost nats / 150."""
    after = shift(0.3)
    table = compare(texts(UNEDITED, BEFORE), texts(at("rome", 5), after))
    row = table.row(0, named=True)
    assert row["estimate"] == pytest.approx((sum(BEFORE) - sum(after)) / 150)
    assert row["estimate"] == pytest.approx(math.log(row["edited"] / row["unedited"]))
    assert (row["scale"], row["margin"], row["verdict"]) == ("log_ratio", 0.05, "harm")
    assert (row["worse"], row["better"]) == (None, None)


def test_bits_per_byte_are_compared_as_the_perplexities_they_stand_for():
    perplexity = compare(texts(UNEDITED, BEFORE), texts(at("rome", 5), shift(0.1))).row(0, named=True)
    bits = compare(
        texts(UNEDITED, BEFORE, "bits_per_byte"), texts(at("rome", 5), shift(0.1), "bits_per_byte")
    ).row(0, named=True)
    for name in ("estimate", "low", "high", "p", "p_no_harm", "mde", "verdict"):
        assert bits[name] == pytest.approx(perplexity[name])
    assert math.log(2) * (bits["edited"] - bits["unedited"]) == pytest.approx(bits["estimate"])


def test_the_mean_over_seeds_is_what_the_estimate_belongs_to():
    table = compare(
        answers(UNEDITED, RIGHT),
        texts(UNEDITED, BEFORE),
        *(answers(at("rome", 5, seed), worse(10 + seed)) for seed in (0, 1)),
        *(texts(at("rome", 5, seed), shift(0.2 + seed)) for seed in (0, 1)),
    )
    facts, prose = table.sort("task").rows(named=True)
    assert (facts["seeds"], facts["interval"], facts["test"]) == (2, "crossed bootstrap", "crossed bootstrap")
    assert facts["edited"] == pytest.approx(0.495)
    assert facts["estimate"] == pytest.approx(-0.105)
    assert facts["worse"] == 21
    assert prose["estimate"] == pytest.approx(math.log(prose["edited"] / prose["unedited"]))


def test_the_family_is_all_measurable_cells_of_a_model_and_data_set():
    guessed = [1.0] * 50 + [0.0] * 50
    table = compare(
        answers(UNEDITED, RIGHT),
        answers(UNEDITED, guessed, "guesses", 0.5),
        *(answers(at(f"e{one}", 5), worse(one)) for one in (5, 7, 9)),
        *(answers(at(f"e{one}", 5), guessed, "guesses", 0.5) for one in (5, 7, 9)),
        answers(at("rome", 5, dataset="dates"), worse(6)),
    )
    family = table.filter(task="facts", dataset="capitals").sort("editor")
    expected = [mcnemar_p(5, 0) * 1, mcnemar_p(7, 0) * 2, mcnemar_p(9, 0) * 3]
    assert family["p_holm"].to_list() == pytest.approx(expected)
    assert family["p_no_harm_holm"].to_list() == pytest.approx(
        adjust_holm(family["p_no_harm"].to_numpy()).tolist()
    )
    other = table.filter(dataset="dates").row(0, named=True)
    assert other["p_holm"] == other["p"]
    assert set(table.filter(task="guesses")["verdict"]) == {"at chance"}
    assert table.filter(task="guesses")["p_holm"].null_count() == 3


def test_an_editor_that_changes_nothing_gives_zero_in_all_cells():
    many = RIGHT * 10
    table = compare(
        answers(UNEDITED, many),
        texts(UNEDITED, BEFORE),
        *(answers(at("noop", edits, seed), many) for edits in (1, 5) for seed in (0, 1)),
        *(texts(at("noop", edits), BEFORE) for edits in (1, 5)),
    )
    assert set(table["estimate"]) == {0.0}
    assert set(table["p"]) == {1.0}
    assert set(table["verdict"]) == {"no harm"}
    assert set(table.filter(task="facts")["worse"]) == {0}


def test_a_value_that_is_not_finite_is_a_collapse():
    table = compare(
        texts(UNEDITED, BEFORE),
        texts(at("rome", 5), [-1e5 * words for words in WORDS]),
        texts(at("rome", 1), shift(0.2)),
    )
    assert table.sort("edits")["verdict"].to_list() == ["harm", "collapsed"]
    assert table.sort("edits")["p_holm"].null_count() == 1


def test_a_cell_whose_collapsed_seeds_were_left_out_is_not_evaluated():
    """Of two seeds one has collapsed at 1 edit: what the other shows at 5 is that of the survivors."""
    table = compare(
        answers(UNEDITED, RIGHT),
        *(answers(at("rome", 1, seed), worse(30 * seed)) for seed in (0, 1)),
        answers(at("rome", 5, 0), RIGHT),
        collapses=not_evaluated(at("rome", 5, 1), at("rome", 9, 0), at("rome", 9, 1)),
    )
    assert table["edits"].to_list() == [1, 5, 9]
    assert table["verdict"].to_list()[1:] == ["not evaluated", "not evaluated"]
    assert table["p"].null_count() == 2
    assert set(table["unedited"]) == {0.6}


def test_a_metric_that_is_not_a_sum_over_items_has_an_estimate_and_no_verdict(caplog):
    rows = [answers(UNEDITED, RIGHT), answers(at("rome", 5), worse(30))]
    for one in rows:
        one["row"]["value"] = one["row"]["value"] ** 2  # some number that the items do not make
    for items in (True, False):
        own = rows if items else [{**one, "items": []} for one in rows]
        row = compare(*own).row(0, named=True)
        assert row["estimate"] == pytest.approx(0.09 - 0.36)
        assert (row["p"], row["low"], row["verdict"]) == (None, None, "inconclusive")
    assert "not a ratio of sums" in caplog.text


def test_a_group_is_compared_by_the_items_of_its_tasks():
    """mmlu is the mean over the items of mmlu_…; its own row has none."""
    parts = [
        answers(key, scores, task)
        for key, all_scores in ((UNEDITED, RIGHT), (at("rome", 5), worse(20)))
        for task, scores in (("mmlu_art", all_scores[:30]), ("mmlu_law", all_scores[30:]))
    ]
    groups = [
        {**answers(UNEDITED, RIGHT, "mmlu"), "items": []},
        {**answers(at("rome", 5), worse(20), "mmlu"), "items": []},
    ]
    for one in parts:
        one["row"]["primary"] = False
    row = compare(*parts, *groups).row(0, named=True)
    assert (row["task"], row["n"], row["worse"], row["verdict"]) == ("mmlu", 100, 20, "harm")


def faulty(change) -> pl.DataFrame:
    tables = frames(answers(UNEDITED, RIGHT), answers(at("rome", 5), worse(3)))
    items = tables["ability-items"]
    edited = pl.col("editor") == "rome"
    return compare_pairs(pair_items(tables["abilities"], change(items, edited)), None, TERMS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda items, edited: items.filter(~edited | (pl.col("doc_id") != 7)),
            "only 99 of the unedited model's 100",
        ),
        (lambda items, edited: items.filter(~edited), "none of the unedited model's 100 items"),
        (
            lambda items, edited: items.filter(edited | (pl.col("doc_id") != 7)),
            "1 items that the unedited model",
        ),
        (lambda items, edited: pl.concat([items, items.filter(edited).head(2)]), "2 items twice"),
        (lambda items, edited: pl.concat([items, items.filter(~edited).head(2)]), "has an item twice"),
        (
            lambda items, edited: items.with_columns(
                task_hash=pl.when(edited).then(pl.lit("other")).otherwise("task_hash")
            ),
            "another version of the task",
        ),
    ],
)
def test_items_that_cannot_be_paired_are_an_error_not_a_shorter_table(change, fault):
    with pytest.raises(CollateralError, match=fault) as error:
        faulty(change)
    text = str(error.value)
    assert "\n" not in text
    for word in ("model 'tiny'", "suite 'core'", "task 'facts'", "delete results/"):
        assert word in text
    if "has an item twice" not in text:
        assert "editor 'rome', 5 edits" in text
        assert "results/edited/tiny/capitals/seed-0/rome/edits-0005/abilities/core.*" in text


def test_a_document_that_a_task_asks_twice_pairs_by_its_number_and_target():
    tables = frames(answers(UNEDITED, RIGHT), answers(at("rome", 5), worse(3)))
    same = tables["ability-items"].with_columns(doc_hash=pl.lit("one document"))
    shuffled = same.sample(fraction=1, shuffle=True, seed=1)
    row = compare_pairs(pair_items(tables["abilities"], shuffled), None, TERMS).row(0, named=True)
    assert (row["worse"], row["better"]) == (3, 0)


def test_a_study_whose_unedited_model_is_not_evaluated_yet_has_no_cells(caplog):
    assert compare(answers(at("rome", 5), worse(3))).is_empty()
    assert "nothing to compare with" in caplog.text


# what is left


def left(*checkpoints) -> pl.DataFrame:
    tables = frames(*checkpoints)
    return normalize_abilities(pair_items(tables["abilities"], tables["ability-items"]))


def test_what_is_left_lies_between_chance_and_the_unedited_model():
    """(0.42 - 0.25) / (0.6 - 0.25); 8 / 10; at chance: not measurable."""
    table = left(
        answers(UNEDITED, RIGHT, chance=0.25),
        answers(UNEDITED, RIGHT, "guesses", 0.55),
        texts(UNEDITED, BEFORE),
        answers(at("rome", 5), worse(18), chance=0.25),
        answers(at("rome", 5), worse(18), "guesses", 0.55),
        texts(at("rome", 5), shift(0.2)),
    ).sort("task")
    facts, guesses, prose = table.rows(named=True)
    assert facts["normalised"] == pytest.approx(0.17 / 0.35)
    assert (guesses["normalised"], guesses["measurable"]) == (None, False)
    assert prose["normalised"] == pytest.approx(prose["unedited"] / prose["value"])
    assert facts["measurable"]
    assert prose["measurable"]


def test_bits_leave_what_their_perplexity_leaves():
    perplexity = left(texts(UNEDITED, BEFORE), texts(at("rome", 5), shift(0.2)))
    bits = left(texts(UNEDITED, BEFORE, "bits_per_byte"), texts(at("rome", 5), shift(0.2), "bits_per_byte"))
    assert bits["normalised"].to_list() == pytest.approx(perplexity["normalised"].to_list())


def test_a_perplexity_that_is_not_a_number_leaves_nothing():
    for value in (math.nan, math.inf):
        broken = texts(at("rome", 5), shift(0.2))
        broken["row"]["value"] = value
        assert left(texts(UNEDITED, BEFORE), broken)["normalised"].to_list() == [0.0]


def test_a_collapsed_chain_is_carried_on_as_it_was():
    table = left(
        answers(UNEDITED, RIGHT),
        answers(at("rome", 1), worse(6)),
        answers(at("rome", 2), worse(30)),
        answers(at("ft", 1), RIGHT),
    )
    onward = (
        carry_forward(table, not_evaluated(at("rome", 5), at("rome", 9))).filter(editor="rome").sort("edits")
    )
    assert onward["edits"].to_list() == [1, 2, 5, 9]
    assert onward["normalised"].to_list() == pytest.approx([0.9, 0.5, 0.5, 0.5])


# horizons


def horizon(*checkpoints, collapses=None, **terms) -> dict:
    tables = frames(*checkpoints)
    found = estimate_horizons(
        pair_items(tables["abilities"], tables["ability-items"]), collapses, Terms(resamples=400, **terms)
    )
    assert found.height == 1
    return found.row(0, named=True)


def test_the_horizon_lies_on_the_line_between_two_checkpoints():
    """0.6 at 0, 0.588 at 10 (98 %), 0.528 at 20 (88 %): 95 % is passed at 10 + 10 * 3 / 10 = 13."""
    many = [1.0] * 600 + [0.0] * 400
    found = horizon(
        answers(UNEDITED, many),
        answers(at("rome", 10), [0.0] * 12 + many[12:]),
        answers(at("rome", 20), [0.0] * 72 + many[72:]),
        answers(at("rome", 30), many),
    )
    assert found["horizon"] == pytest.approx(13)
    assert (found["reached"], found["last_edits"], found["n"], found["seeds"], found["loss"]) == (
        True,
        30,
        1000,
        1,
        0.05,
    )
    assert 0 < found["low"] < 13 < found["high"] <= 20


def test_a_horizon_beyond_the_study_is_censored():
    found = horizon(answers(UNEDITED, RIGHT), *(answers(at("noop", edits), RIGHT) for edits in (5, 50)))
    assert (found["horizon"], found["low"], found["high"], found["reached"]) == (None, None, None, False)
    assert found["last_edits"] == 50
    near = horizon(answers(UNEDITED, RIGHT), answers(at("rome", 5), RIGHT), answers(at("rome", 50), worse(3)))
    assert near["low"] is not None
    assert (near["reached"], near["high"]) == (True, None)  # half of the resamples do not reach it


def test_a_horizon_of_an_ability_at_chance_is_not_known():
    guessed = [1.0, 0.0] * 50
    found = horizon(answers(UNEDITED, guessed, chance=0.5), answers(at("rome", 5), guessed, chance=0.5))
    assert (found["horizon"], found["reached"], found["low"]) == (None, None, None)


def test_a_horizon_counts_a_collapsed_seed_to_the_end():
    """Seed 1 loses all at 1 edit and is left out at 9, where seed 0 lost 2 of 60: half is lost, not a thirtieth."""
    rows = [
        answers(UNEDITED, RIGHT),
        answers(at("rome", 1, 0), RIGHT),
        answers(at("rome", 1, 1), worse(60)),
        answers(at("rome", 9, 0), worse(2)),
    ]
    found = horizon(*rows, collapses=not_evaluated(at("rome", 9, 1)), horizon_loss=0.51)
    assert found["reached"]
    assert 1 < found["horizon"] < 9
    assert horizon(*rows, horizon_loss=0.51)["reached"] is False
    assert found["seeds"] == 2


def test_the_interval_of_a_horizon_is_that_of_resampled_curves():
    """One checkpoint: the horizon is 10 * 0.05 / loss, and the loss is k / right of resampled items."""
    found = horizon(answers(UNEDITED, RIGHT), answers(at("rome", 10), worse(20)))
    rng = np.random.default_rng(8)
    lost, right = rng.multinomial(100, [0.2, 0.4, 0.4], size=20_000)[:, :2].T
    drawn = 10 * 0.05 * (lost + right) / lost
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=0.1)


def test_the_smallest_frames_have_every_column_and_no_rows():
    empty = frames()
    assert compare_pairs(
        pair_items(empty["abilities"], empty["ability-items"]), None, TERMS
    ).schema == pl.Schema(SCHEMA)
    assert estimate_horizons([], None, TERMS).is_empty()
    assert normalize_abilities([]).is_empty()
