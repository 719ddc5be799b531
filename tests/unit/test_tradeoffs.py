"""Retention by age, harm at matched efficacy, and what predicts harm: numbers by hand and by other routes."""

import math
import time

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from collateral.analysis.statistics.derive import derive_tables
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.statistics.normalized import normalize_abilities
from collateral.analysis.statistics.pairing import pair_items
from collateral.analysis.statistics.predictors import (
    correlate_predictors,
    spearman,
    summarize_drift,
    summarize_objectives,
    summarize_weights,
)
from collateral.analysis.statistics.retention import measure_retention
from collateral.analysis.statistics.tradeoffs import (
    compute_areas,
    compute_efficacies,
    compute_tradeoffs,
    find_front,
    select_common_tasks,
)
from collateral.analysis.tables.collect import KEY
from paired_frames import BEFORE, UNEDITED, answers, at, efficacy, frames, reliability, texts

TERMS = Terms(resamples=400)
RIGHT = [1.0] * 60 + [0.0] * 40
WEIGHTS = {
    **KEY,
    "parameter": pl.String,
    "statistic": pl.String,
    "threshold": pl.Float64,
    "value": pl.Float64,
}


# retention


def test_edits_are_scored_by_the_number_of_edits_since():
    """After 12 edits: the last is of age 0, edits 8 to 11 of 1 to 4, 3 to 7 of 5 to 9, 1 and 2 of 10 and 11."""
    scores = {position: 1.0 if position > 2 else 0.25 * position for position in range(1, 13)}
    table = measure_retention(efficacy(reliability(at("rome", 12), scores)), None).filter(
        how="teacher-forced"
    )
    assert table.select("age_low", "age_high", "n", "value").rows() == [
        (0, 0, 1, 1.0),
        (1, 4, 4, 1.0),
        (5, 9, 5, 1.0),
        (10, 19, 2, 0.375),
    ]
    # scores 0.25 and 0.5: se² = 2/1 (0.125² + 0.125²) / 2² = 0.015625
    assert table["stderr"].to_list()[-1] == pytest.approx(0.125)
    assert table["stderr"].to_list()[0] is None


def test_facts_of_one_batch_have_one_age():
    editors = pl.DataFrame({"editor": ["memit"], "batch_size": pl.Series([5], dtype=pl.Int32)})
    scores = dict.fromkeys(range(1, 11), 1.0)
    table = measure_retention(efficacy(reliability(at("memit", 10), scores)), editors).filter(
        how="generation"
    )
    assert table.select("age_low", "age_high", "n").rows() == [(0, 0, 5), (5, 9, 5)]


def test_right_after_the_edit_is_told_for_every_checkpoint_up_to_it():
    """Edits 1 and 2 were probed when they were made, for checkpoints 1 and 2; both belong to checkpoint 2."""
    table = measure_retention(
        efficacy(
            reliability(at("rome", 1), {1: 1.0}, "after_edit"),
            reliability(at("rome", 2), {2: 0.5}, "after_edit"),
            reliability(at("rome", 1), {1: 1.0}),
            reliability(at("rome", 2), {1: 0.0, 2: 0.5}),
            reliability(at("alone", 2), {1: 1.0}, "after_edit"),  # single edits: no later checkpoint
        ),
        None,
    ).filter(how="teacher-forced")
    assert table.filter(age_low=-1).select("editor", "edits", "age_high", "value", "n").rows() == [
        ("rome", 1, -1, 1.0, 1),
        ("rome", 2, -1, 0.75, 2),
    ]
    assert table.filter(edits=2, age_low=1)["value"].to_list() == [0.0]


def test_several_seeds_count_together():
    table = measure_retention(
        efficacy(*(reliability(at("rome", 1, seed), {1: float(seed)}) for seed in (0, 1, 2))), None
    ).filter(how="teacher-forced")
    assert table.select("value", "n", "seeds").row(0) == (1.0, 3, 3)


# trade-offs


def study(*points: tuple[str, int, int, float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Normalised abilities and efficacy of (editor, edits, items lost of 60, reliability)."""
    tables = frames(
        answers(UNEDITED, RIGHT),
        *(answers(at(editor, edits), [0.0] * lost + RIGHT[lost:]) for editor, edits, lost, _ in points),
    )
    probes = [
        reliability(at(editor, edits), dict.fromkeys(range(1, edits + 1), score))
        for editor, edits, _, score in points
    ]
    after = [
        reliability(at(editor, edits), dict.fromkeys(range(1, edits + 1), 0.8), "after_edit")
        for editor, edits, _, _ in points
    ]
    return normalize_abilities(pair_items(tables["abilities"], tables["ability-items"])), efficacy(
        *probes, *after
    )


def test_the_front_is_what_no_other_point_beats():
    table = compute_tradeoffs(
        *study(("noop", 5, 0, 0.0), ("rome", 5, 12, 0.8), ("rect", 5, 6, 0.8), ("ft", 5, 30, 0.4))
    )
    own = table.filter(efficacy_kind="teacher-forced")
    assert own.select("editor", "ability", "efficacy", "on_front").rows() == [
        ("ft", pytest.approx(0.5), pytest.approx(0.4), False),
        ("noop", pytest.approx(1.0), pytest.approx(0.0), True),
        ("rect", pytest.approx(0.9), pytest.approx(0.8), True),
        ("rome", pytest.approx(0.8), pytest.approx(0.8), False),
    ]
    kept = table.filter(efficacy_kind="retention", editor="ft")
    assert kept["efficacy"].to_list() == pytest.approx([0.5])  # 0.4 now, 0.8 right after


def test_equal_points_share_the_front_and_unknown_ones_are_not_on_it():
    found = find_front(np.array([1.0, 1.0, 0.5, 2.0]), np.array([0.5, 0.5, 0.5, math.nan]))
    assert found.tolist() == [True, True, False, False]


def test_retention_without_any_edit_taken_is_not_known():
    own = compute_efficacies(
        efficacy(reliability(at("kn", 1), {1: 0.0}), reliability(at("kn", 1), {1: 0.0}, "after_edit"))
    )
    assert own.filter(efficacy_kind="retention")["efficacy"].to_list() == [None]


def test_the_area_under_a_curve_by_hand():
    """Ability 1, 0.8 at 5, 0.5 at 10: (0.9 * 5 + 0.65 * 5) / 10; efficacy 0.8 to 5, then to 0.4: (4 + 3) / 10."""
    points = compute_tradeoffs(*study(("rome", 5, 12, 0.8), ("rome", 10, 30, 0.4)))
    row = compute_areas(points).filter(efficacy_kind="teacher-forced").row(0, named=True)
    assert row["ability_area"] == pytest.approx(0.775)
    assert row["efficacy_area"] == pytest.approx(0.7)
    assert row["last_edits"] == 10
    still = compute_areas(compute_tradeoffs(*study(("noop", 5, 0, 0.0), ("noop", 50, 0, 0.0))))
    assert set(still["ability_area"]) == {1.0}


def test_a_mean_ability_is_that_of_the_tasks_that_all_checkpoints_have(caplog):
    rows = [
        answers(UNEDITED, RIGHT),
        answers(UNEDITED, RIGHT, "more"),
        answers(at("rome", 5), [0.0] * 6 + RIGHT[6:]),
        answers(at("ft", 5), RIGHT),
        answers(at("ft", 5), [0.0] * 60 + RIGHT[60:], "more"),
    ]

    def kept(own):
        tables = frames(*own)
        return select_common_tasks(
            normalize_abilities(pair_items(tables["abilities"], tables["ability-items"]))
        )

    assert set(kept(rows)["task"]) == {"facts"}
    assert kept([*rows[:3], rows[4]]).is_empty()
    assert "no task was evaluated at every checkpoint" in caplog.text


# predictors


def weights(*rows: tuple) -> pl.DataFrame:
    """Rows of (editor, edits, parameter, statistic, threshold, value)."""
    whole = [
        {"model": "tiny", **at(editor, edits), **dict(zip(list(WEIGHTS)[5:], own, strict=True))}
        for editor, edits, *own in rows
    ]
    return pl.DataFrame(whole, schema=WEIGHTS)


def test_the_matrices_of_a_checkpoint_become_one_number():
    """Sizes 300 and 100 elements. Sum 3 + 4, root 5, largest 4, weighted (300 * 0.1 + 100 * 0.5) / 400 = 0.2."""
    both = [
        (statistic, threshold, first, second)
        for statistic, threshold, first, second in (
            ("manhattan", None, 3.0, 4.0),
            ("fro_delta", None, 3.0, 4.0),
            ("spectral_delta", None, 3.0, 4.0),
            ("delta_share", 0.171, 0.1, 0.5),
            ("l1_before", None, 30.0, 20.0),
            ("l1_after", None, 60.0, 40.0),
            ("mean_abs_before", None, 0.1, 0.2),
            ("spectral_before", None, 1.0, 2.0),
            ("spectral_after", None, 3.0, 4.0),
            ("zero_weights", None, 7.0, 8.0),
        )
    ]
    table = weights(
        *(
            ("rome", 5, f"matrix {place}", statistic, threshold, value)
            for statistic, threshold, *values in both
            for place, value in enumerate(values)
        ),
        ("noop", 5, "none", "manhattan", None, 0.0),
    )
    found = summarize_weights(table)
    told = {row["statistic"]: row["value"] for row in found.filter(editor="rome").rows(named=True)}
    assert told == {
        "manhattan": 7.0,
        "fro_delta": 5.0,
        "spectral_delta": 4.0,
        "delta_share above 0.171": pytest.approx(0.2),
        "l1_ratio": 2.0,
        "spectral_ratio": 3.0,
    }
    still = {row["statistic"]: row["value"] for row in found.filter(editor="noop").rows(named=True)}
    assert still == {name: 1.0 if name.endswith("_ratio") else 0.0 for name in told}


def test_drift_is_told_of_the_last_layer_and_of_those_edited():
    rows = [(layer, "hidden_drift_cosine", value) for layer, value in ((3, 0.1), (4, 0.3), (9, 0.8))]
    drift = pl.DataFrame(
        [
            {"model": "tiny", **at("rome", 5), "layer": layer, "statistic": name, "value": value}
            for layer, name, value in rows
        ]
        + [{"model": "tiny", **at("rome", 5), "layer": None, "statistic": "kl_next_token", "value": 2.0}],
        schema={**KEY, "layer": pl.Int32, "statistic": pl.String, "value": pl.Float64},
    )
    found = {row["statistic"]: row["value"] for row in summarize_drift(drift).rows(named=True)}
    assert found == {
        "hidden_drift_cosine, edited layers": pytest.approx(0.2),
        "hidden_drift_cosine, last layer": 0.8,
        "kl_next_token": 2.0,
    }
    assert summarize_drift(None).is_empty()


def test_the_perplexity_of_the_objectives_is_that_of_the_edits_made_so_far():
    objectives = pl.DataFrame(
        {
            "model": "tiny",
            "dataset": "capitals",
            "seed": pl.Series([0, 0, 0], dtype=pl.Int32),
            "position": pl.Series([1, 2, 3], dtype=pl.Int32),
            "question_type": ["direct", "true-false", "direct"],
            "nll": [1.0, 3.0, 8.0],
        }
    )
    harm = pl.DataFrame(
        [{"model": "tiny", **at("rome", 2), "harm": "mean", "loss": 0.1}],
        schema={**KEY, "harm": pl.String, "loss": pl.Float64},
    )
    found = {
        row["statistic"]: row["value"] for row in summarize_objectives(objectives, harm).rows(named=True)
    }
    assert found == {
        "objective_perplexity": pytest.approx(math.exp(2.0)),
        "objective_perplexity, direct": pytest.approx(math.exp(1.0)),
        "objective_perplexity, true-false": pytest.approx(math.exp(3.0)),
    }


def test_rank_correlations_are_the_librarys_with_ties_and_repeats():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 30).astype(float), rng.integers(0, 8, 30).astype(float)
    times = rng.multinomial(30, np.full(30, 1 / 30), size=20)
    found = spearman(x, y, times.astype(float))
    for drawn, own in zip(times, found, strict=True):
        assert own == pytest.approx(spearmanr(np.repeat(x, drawn), np.repeat(y, drawn)).statistic)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0), np.ones((1, 3))))[0]


def test_a_statistic_that_orders_the_checkpoints_as_harm_does_has_rho_one():
    editors = [f"e{one}" for one in range(6)]
    left, _ = study(
        *((editor, edits, 3 * place + edits, 0.5) for place, editor in enumerate(editors) for edits in (1, 2))
    )
    table = weights(
        *(
            (editor, edits, "matrix", name, None, sign * (10.0 * place + edits))
            for place, editor in enumerate(editors)
            for edits in (1, 2)
            for name, sign in (("manhattan", 1.0), ("stable_rank_delta", -1.0), ("fro_delta", 0.0))
        )
    )
    found = correlate_predictors(left, table, None, None, TERMS).filter(harm="mean", dataset="capitals")
    told = {row["statistic"]: row for row in found.rows(named=True)}
    assert told["manhattan"]["rho"] == pytest.approx(1.0)
    assert told["stable_rank_delta"]["rho"] == pytest.approx(-1.0)
    assert told["fro_delta"]["rho"] is None
    assert (told["manhattan"]["points"], told["manhattan"]["chains"]) == (12, 6)
    assert told["manhattan"]["low"] == pytest.approx(1.0)
    assert told["manhattan"]["p"] == pytest.approx(2 / 401, rel=0.02)
    five = correlate_predictors(left.filter(pl.col("editor") != "e5"), table, None, None, TERMS)
    assert five.filter(statistic="manhattan")["p"].to_list() == pytest.approx(
        [2 / 120] * 4
    )  # 5! orders of chains
    few = correlate_predictors(left.filter(pl.col("editor").is_in(editors[:2])), table, None, None, TERMS)
    assert few.filter(statistic="manhattan")["rho"].to_list() == pytest.approx([1.0] * 4)
    assert few["low"].null_count() == few.height


# all together


def test_a_study_without_results_has_every_table_without_rows():
    nothing = {**frames(), "efficacy": pl.DataFrame(schema=KEY), "weights": pl.DataFrame(schema=KEY)}
    found = derive_tables(nothing, TERMS)
    assert [name for name, table in found.items() if not table.is_empty() or not table.width] == []
    assert set(found) == {
        "comparisons",
        "normalised",
        "horizons",
        "retention",
        "tradeoffs",
        "areas",
        "predictors",
    }


def test_every_table_of_a_small_study_is_made_and_made_again_alike():
    left = [texts(at(editor, edits), BEFORE) for editor in ("rome", "noop") for edits in (1, 5)]
    tables = {
        **frames(
            answers(UNEDITED, RIGHT),
            texts(UNEDITED, BEFORE),
            *left,
            *(answers(at(editor, edits), RIGHT) for editor in ("rome", "noop") for edits in (1, 5)),
        ),
        "efficacy": efficacy(
            *(reliability(at(editor, edits), {1: 1.0}) for editor in ("rome", "noop") for edits in (1, 5))
        ),
        "weights": weights(
            ("rome", 1, "matrix", "manhattan", None, 1.0), ("rome", 5, "matrix", "manhattan", None, 2.0)
        ),
    }
    first, again = derive_tables(tables, TERMS), derive_tables(tables, TERMS)
    for name, table in first.items():
        assert not table.is_empty(), name
        assert table.equals(again[name]), name


@pytest.mark.slow
def test_a_hundred_thousand_items_take_well_under_a_minute():
    """40 checkpoints of 2,500 items, half 0/1 scores and half not."""
    rng = np.random.default_rng(0)
    shares, scores = (rng.random(1250) < 0.6).astype(float), rng.random(1250)
    checkpoints = [answers(UNEDITED, shares), answers(UNEDITED, scores, "scores")]
    for edits in range(1, 41):
        flipped = np.where(rng.random(1250) < 0.02, 1 - shares, shares)
        checkpoints.append(answers(at("rome", edits), flipped.tolist()))
        moved = np.clip(scores + rng.normal(0, 0.05, 1250), 0, 1)
        checkpoints.append(answers(at("rome", edits), moved.tolist(), "scores"))
    tables = {
        **frames(*checkpoints),
        "efficacy": pl.DataFrame(schema=KEY),
        "weights": pl.DataFrame(schema=KEY),
    }
    assert tables["ability-items"].height > 100_000
    start = time.process_time()
    found = derive_tables(tables, Terms())
    assert found["comparisons"].height == 80
    assert time.process_time() - start < 40
