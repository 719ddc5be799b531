"""The numbers and findings of the figures that rest on derived tables, worked by hand on small frames."""

import math

import polars as pl
import pytest

import figure_frames as given
import report_frames as frames
from collateral.report.charts import paper_tables
from collateral.report.figures import (
    abilities,
    batches,
    before_after,
    costs,
    datasets,
    drift,
    horizons,
    predictors,
    questions,
    regularizers,
    retention,
    success,
    tradeoffs,
    verdicts,
)

TABLES = given.derived()


def row(points, **wanted):
    found = points.filter(**wanted)
    assert found.height == 1
    return found.row(0, named=True)


def test_paired_intervals_are_laid_around_the_unedited_value():
    points = abilities.ability_points(TABLES)
    sentiment = row(points, editor="rome", edits=5, task="sst2")
    assert (sentiment["lower"], sentiment["upper"]) == (
        pytest.approx(0.42),
        pytest.approx(0.54),
    )  # 0.6 - 0.18, - 0.06
    prose = row(points, editor="rome", edits=5, task="prose")
    assert prose["lower"] == pytest.approx(30 * math.exp(0.3))
    assert row(points, editor="rome", edits=1, task="boolq")["lower"] is None
    assert "interval of the difference to the unedited model, paired by item" in abilities.abilities_caption(
        TABLES
    )


def test_what_has_no_interval_keeps_its_standard_error():
    spec = abilities.abilities_chart(TABLES).to_dict()
    bars = {
        (data["editor"], data["edits"]): (data["lower"], data["upper"])
        for rows in spec["datasets"].values()
        for data in rows
        if data.get("value") == 0.3
    }
    assert bars == {("rome", 5): (pytest.approx(0.26), pytest.approx(0.34))}  # yes/no, 0.3 ± 0.04


def test_a_collapsed_perplexity_is_drawn_at_the_edge_and_told_in_full():
    table = frames.tables()["abilities"]
    collapsed = table.with_columns(
        value=pl.when((pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("task") == "prose"))
        .then(3e9)
        .otherwise(pl.col("value"))
    )
    spec = abilities.abilities_chart({"abilities": collapsed}).to_dict()
    drawn = [data for rows in spec["datasets"].values() for data in rows if data.get("exact") == 3e9]
    assert [data["value"] for data in drawn] == [960.0]  # 32 times 30
    assert spec["concat"][2]["title"]["subtitle"][0].endswith("drawn up to ×32")


def test_chains_that_stop_at_their_collapse_are_named():
    collapses = frames.frame(
        [
            {**frames.KEY, "editor": "rome", "edits": edits, "collapsed": edits > 1, "first": edits == 5,
             "reasons": "perplexity", "evaluated": edits < 10}
            for edits in (1, 5, 10)
        ]
    )  # fmt: skip
    caption = abilities.abilities_caption(frames.tables() | {"collapses": collapses})
    assert caption.endswith("Not evaluated any further, collapsed: rome at 5 edits.")


def test_verdicts_stand_at_each_editors_last_checkpoint_with_their_words():
    points = verdicts.verdict_points(TABLES)
    assert points.height == 4
    assert row(points, editor="rome", task="sst2")["words"] == "▼ −12.0"
    assert row(points, editor="rome", task="prose")["words"] == "▼ ×1.50"
    assert row(points, editor="rome-rect-40", task="sst2")["words"] == "= −1.0"
    assert row(points, editor="rome-rect-40", task="prose")["words"] == "? ×1.10"
    assert verdicts.verdicts_caption(TABLES).endswith(
        "2 of 4 measurable cells show harm, most for rome (2); 1 show no harm beyond the margin and 1 are "
        "inconclusive."
    )


def test_verdicts_without_an_estimate_are_their_mark():
    table = given.comparisons().with_columns(
        verdict=pl.lit("not evaluated"), estimate=pl.lit(None, pl.Float64), n=pl.lit(None, pl.Int64)
    )
    points = verdicts.verdict_points({"comparisons": table})
    assert set(points["words"]) == {"–"}
    assert "None of 0 measurable cells shows harm" in verdicts.verdicts_caption({"comparisons": table})


def test_abilities_of_one_name_are_told_apart_by_task():
    both = pl.concat([given.comparisons(), given.comparisons().with_columns(task=pl.col("task") + "-again")])
    names = set(verdicts.verdict_points({"comparisons": both})["column"])
    assert "sentiment (sst2)" in names
    assert "sentiment (sst2-again)" in names


def test_horizons_that_are_not_reached_lie_beyond_the_last_checkpoint():
    points = horizons.horizon_points(TABLES)
    reached, beyond = row(points, editor="rome"), row(points, editor="rome-rect-40")
    assert (reached["value"], reached["lower"], reached["upper"], reached["censored"]) == (
        2.5,
        1.5,
        5.0,
        False,
    )
    assert (beyond["value"], beyond["lower"], beyond["upper"], beyond["censored"]) == (5.0, None, None, True)
    assert (
        "rome gets there first: sentiment after 2.50 edits; 1 of 2 are not reached."
        in horizons.horizons_caption(TABLES)
    )


def test_tradeoffs_name_the_front_and_who_leaves_least():
    caption = tradeoffs.tradeoffs_caption(TABLES)
    assert "3 checkpoints of 2 editors" in caption
    assert "On the front, generation: rome and rome-rect-40." in caption
    assert caption.endswith("The least is left under rome: 40.0% after 5 edits.")


def test_areas_name_best_and_worst():
    assert tradeoffs.area_points(TABLES).height == 2 + 4  # abilities once an editor, efficacy by kind
    assert tradeoffs.areas_caption(TABLES).endswith("rome-rect-40 leaves 96.0% of the abilities, rome 70.0%.")


def test_retention_by_age_leaves_out_what_is_no_age():
    points = retention.age_points(TABLES)
    assert points.select("age", "words").rows() == [("0", "100"), ("1–4", "50")]
    assert (
        "rome forgets most with age: after 5 edits, 100.0% of its youngest and 50.0% of its oldest edits "
        "(1–4 edits since) hold, free generation." in retention.ages_caption(TABLES)
    )


def test_predictors_are_ranked_by_their_own_data_set_where_they_have_it():
    points = predictors.predictor_points(TABLES)
    ranked = points.filter(harm="mean")["statistic"].unique(maintain_order=True).to_list()
    assert ranked == ["kl_next_token", "manhattan", "spectral_delta"]
    caption = predictors.predictors_caption(TABLES)
    assert "manhattan goes with harm most closely: ρ = 0.90 [0.70, 1.0]" in caption
    assert "for 1 of 2 statistics the interval leaves out zero" in caption
    table = TABLES["predictors"]
    few = {"predictors": table.with_columns(low=pl.when(pl.col("dataset").is_null()).then("low"))}
    whole = predictors.predictors_finding(few)  # too few chains of this data set for an interval
    assert "spectral delta goes with harm most closely: ρ = 0.99 [0.90, 1.0]" in whole
    assert "all data sets together" in whole


def test_a_statistic_whose_interval_holds_zero_is_not_counted():
    own = {"predictors": given.predictors().filter(pl.col("dataset").is_not_null())}
    assert predictors.predictors_caption(own).endswith(
        "manhattan goes with harm most closely: ρ = 0.90 [0.70, 1.0] over 4 checkpoints of 2 chains; for 1 of 2 "
        "statistics the interval leaves out zero."
    )
    assert predictors.by_ability_caption(own).endswith(
        "Closest of all: manhattan with the loss of sentiment, ρ = 0.80 [0.50, 0.90]."
    )


def test_costs_are_sums_over_a_chain_and_means_over_chains():
    points = costs.cost_points(TABLES)
    seconds = row(points, measure="seconds", rule="edit", editor="rome")
    assert (seconds["value"], seconds["lower"], seconds["upper"], seconds["chains"]) == (40.0, 30.0, 50.0, 2)
    assert row(points, measure="memory", rule="edit", editor="rome")["value"] == 650.0  # of 700 and 600
    assert row(points, measure="bytes", rule="edit", editor="rome")["value"] == 400.0
    assert points.filter(measure="bytes", rule="weigh").is_empty()
    assert (
        "Editing takes 40.0 s a chain with rome and 10.0 s with rome-rect-40, 4.0 times less."
        in costs.costs_caption(TABLES)
    )


def test_before_and_after_name_who_loses_most_and_least():
    assert before_after.change_points(TABLES)["edits"].unique().to_list() == [5]
    assert before_after.change_caption(TABLES).endswith(
        "As the mean over task scores, rome loses most (−12.0 points after 5 edits) and rome-rect-40 least "
        "(−2.0 points after 5 edits)."
    )


def test_data_sets_are_compared_at_a_common_checkpoint():
    tables = given.two_datasets()
    assert set(datasets.dataset_points(tables)["dataset"]) == {"capitals", "rivers"}
    # capitals: mean of -0.12 and -0.02; rivers: of -0.06 and -0.02; yes/no is at chance
    assert (
        "task scores change by −7.0 points with capitals and −4.0 points with rivers"
        in datasets.datasets_caption(tables)
    )


def test_question_forms_are_those_of_data_sets_that_ask_in_one():
    points = questions.question_points(TABLES)
    direct = row(points, editor="rome", question_type="direct")
    assert (direct["value"], direct["perplexity"], direct["facts"]) == (0.4, 30.0, 2)
    caption = questions.questions_caption(TABLES)
    assert (
        "direct 60.0% (objective perplexity 30.0); true-false 85.0% (objective perplexity 3.00)." in caption
    )
    assert "less than the least surprising one for 1 of 2 editors" in questions.perplexity_caption(TABLES)


def test_a_data_set_that_asks_in_two_forms_says_nothing_about_either():
    mixed = frames.frame(given.objectives()).with_columns(dataset=pl.lit("capitals"))
    assert questions.question_points(TABLES | {"objectives": mixed}).is_empty()


def test_success_is_of_the_newest_edits_and_of_all():
    points = success.success_points(TABLES)
    newest = row(points, editor="rome", edits=5, panel=success.NEW)
    everything = row(points, editor="rome", edits=5, panel=success.ALL)
    assert (newest["value"], everything["value"]) == (1.0, pytest.approx(0.8))


def test_final_norms_stand_beside_what_is_left():
    tables = given.final()
    assert success.final_caption(tables).endswith(
        "Largest and smallest norm: rome: norm × 1.200, 40.0% of the abilities left after 5 edits; "
        "rome-rect-40: norm × 1.050, 80.0% of the abilities left after 5 edits."
    )


def test_regularisers_are_compared_with_the_same_editor_without():
    points = regularizers.kept_abilities_points(TABLES)
    assert set(points.select("editor", "keep").rows()) == {("rome", 100.0), ("rome-rect-40", 40.0)}
    caption = regularizers.kept_abilities_caption(TABLES)
    assert (
        "rome, in sequence: mean change of task scores −2.0 points at best (rect, 40.0% kept) against −12.0 without"
        in caption
    )
    spec = regularizers.kept_edits_chart(TABLES).to_dict()
    rules = [data for rows in spec["datasets"].values() for data in rows if "what" in data]
    assert {data["what"] for data in rules} == {"without a regulariser"}


def test_only_the_facts_that_all_editors_of_a_family_were_asked_count():
    efficacy = TABLES["efficacy"].filter(
        (pl.col("editor") != "rome") | (pl.col("fact_id") != "fact-1") | (pl.col("when") != "after_edit")
    )
    points = regularizers.kept_edits_points(TABLES | {"efficacy": efficacy})
    assert set(points["facts"]) == {4}


def test_batches_are_compared_after_one_operation_each():
    tables = given.batches()
    assert batches.batch_points(tables).select("batch_size", "value").rows() == [(1, 0.58), (5, 0.50)]
    assert batches.batch_caption(tables).endswith("memit −2.0 points with a batch of 1, −10.0 with 5.")
    assert batches.sequence_points(tables).select("batch", "edits").rows() == [
        ("batches of 1", 1), ("batches of 1", 10), ("batches of 5", 5), ("batches of 5", 10),
    ]  # fmt: skip
    assert batches.sequence_caption(tables).endswith(
        "memit −3.0 after 10 and −12.0 after 10 edits in batches of 1 and 5."
    )


def test_drift_is_drawn_at_the_last_layer_measured():
    spec = drift.drift_chart(TABLES).to_dict()
    assert [part["title"]["subtitle"] for part in spec["concat"]] == [
        ["nats, mean over positions"],
        ["1 − cosine, layer 7"],
    ]
    assert drift.drift_caption(TABLES).endswith("the unedited model's under rome: 0.500 nats.")


def test_edit_success_right_after_each_edit_and_at_the_checkpoint():
    table = paper_tables.tabulate_edit_success(TABLES)
    rome = {r["evaluation"]: r for r in table.filter(editor="rome", edits=5).to_dicts()}
    assert (rome["current"]["efficacy"], rome["current"]["paraphrase"]) == (
        pytest.approx(0.8),
        pytest.approx(0.6),
    )
    assert rome["current"]["specificity"] == pytest.approx(0.4)
    assert rome["current"]["average"] == pytest.approx(0.6)
    assert (rome["original"]["efficacy"], rome["original"]["average"], rome["original"]["facts"]) == (
        1.0,
        None,
        5,
    )
    assert (
        paper_tables.tabulate_edit_success(TABLES)
        .filter(editor="rome", edits=1, evaluation="original")["facts"]
        .item()
        == 1
    )


def test_abilities_before_and_after_have_the_unedited_model_first():
    table = paper_tables.tabulate_before_and_after(TABLES)
    assert table["editor"].to_list() == ["unedited", "rome", "rome-rect-40"]
    assert table["sst2 (acc)"].to_list() == [0.6, 0.48, 0.58]
    assert table["change of sst2 (acc)"].to_list() == pytest.approx([0.0, -0.12, -0.02])


def test_a_task_of_two_suites_has_a_column_for_each():
    twice = pl.concat([TABLES["abilities"], TABLES["abilities"].with_columns(suite=pl.lit("more"))])
    columns = paper_tables.tabulate_before_and_after({"abilities": twice}).columns
    assert {"core: sst2 (acc)", "more: sst2 (acc)"} <= set(columns)


def test_quantiles_of_single_edits_are_means_over_edits():
    rows = [
        {**frames.KEY, "editor": "alone", "edits": 2, "position": fact, "fact_id": f"fact-{fact}",
         "parameter": matrix, "statistic": "delta_quantile", "threshold": 0.8, "value": value}
        for fact, matrix, value in ((1, "a", 0.1), (1, "b", 0.3), (2, "a", 0.3), (2, "b", 0.5))
    ]  # fmt: skip
    table = paper_tables.tabulate_single_edits({"single-weights": frames.frame(rows)})
    assert table.rows() == [("alone", 0.8, pytest.approx(0.3), pytest.approx(0.02**0.5), 2)]
