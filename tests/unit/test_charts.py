"""The numbers behind each figure, its caption, and the validity of its chart, on frames worked by hand."""

import math

import altair as alt
import polars as pl
import pytest

import inferred_frames as inferred
import report_frames as frames
from collateral import captions, charts, summaries
from collateral.errors import CollateralError
from collateral.figures import FIGURES

TABLES = frames.tables() | inferred.tables()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_chart_is_valid_and_every_named_view_of_its_legend_exists(figure):
    spec = figure.chart(TABLES, ()).to_dict()
    views = {layer["name"] for part in spec["concat"] for layer in part.get("layer", []) if "name" in layer}
    named = {view for param in spec.get("params", []) for view in param.get("views", [])}
    assert named == views
    assert bool(views) == (figure.name != "heatmaps")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
@pytest.mark.parametrize("empty", ["no columns", "no rows"])
def test_empty_table_gives_no_points_and_a_clear_error(figure, empty):
    tables = {
        name: pl.DataFrame() if empty == "no columns" else TABLES[name].clear() for name in figure.tables
    }
    assert figure.points(tables).is_empty()
    with pytest.raises(CollateralError, match=f"{figure.tables[0]}.* ha(s|ve) no rows"):
        figure.chart(tables, ())


def test_ability_points_give_change_error_and_chance():
    rows = summaries.ability_points(TABLES["abilities"])
    rome = rows.filter((pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("task") == "sst2"))
    row = rome.row(0, named=True)
    assert row["change"] == pytest.approx(-0.12)
    assert row["change_stderr"] == pytest.approx(0.05)  # sqrt(0.03² + 0.04²)
    at_chance = dict(rows.select("task", "at_chance").unique().iter_rows())
    assert at_chance == {"sst2": False, "boolq": True, "prose": False}  # 0.54 > 0.5; 0.42 <= 0.5; none
    assert dict(rows.select("task", "is_share").unique().iter_rows())["prose"] is False


def test_seeds_are_averaged_with_the_error_of_items_and_of_seeds():
    table = TABLES["abilities"].filter(pl.col("task") == "sst2")
    first = table.filter((pl.col("editor") == "rome") & (pl.col("edits") == 5))
    second = first.with_columns(seed=pl.lit(2, pl.Int64), value=pl.lit(0.58))
    rows = summaries.ability_points(pl.concat([table, second])).filter(
        (pl.col("editor") == "rome") & (pl.col("edits") == 5)
    )
    assert rows["value"].item() == pytest.approx(0.53)
    # items 0.04²; seeds s² = 0.1²/2 over two
    assert rows["stderr"].item() == pytest.approx(math.sqrt(0.04**2 + 0.005 / 2))


def test_standard_error_of_probes_is_clustered_by_fact():
    rows = [
        frames.probe("rome", 2, "now", 1, "reliability", True, probe=0),
        frames.probe("rome", 2, "now", 1, "reliability", True, probe=1),
        frames.probe("rome", 2, "now", 2, "reliability", False),
    ]
    points = summaries.efficacy_points(frames.frame(rows))
    row = points.filter((pl.col("kind") == "reliability") & (pl.col("how") == "generation")).row(
        0, named=True
    )
    assert (row["n"], row["facts"]) == (3, 2)
    assert row["value"] == pytest.approx(2 / 3)
    assert row["stderr"] == pytest.approx(4 / 9)  # residual sums ±2/3: sqrt(2/1 · 8/9) / 3


def test_one_fact_has_no_standard_error():
    points = summaries.efficacy_points(TABLES["efficacy"]).filter(pl.col("edits") == 1)
    assert points["stderr"].null_count() == points.height > 0


def test_each_kind_is_measured_by_its_own_column():
    row = frames.probe("rome", 1, "now", 1, "locality", True, token_accuracy=0.0, generated_match=False)
    points = summaries.efficacy_points(frames.frame([row]))
    assert dict(points.select("how", "value").iter_rows()) == {
        "teacher-forced": 1.0,
        "probability": 1.0,
        "generation": 1.0,
    }


def test_retention_compares_the_same_edits():
    points = summaries.retention_points(TABLES["efficacy"]).filter(pl.col("editor") == "rome")
    found = {(row["edits"], row["when"]): (row["value"], row["n"]) for row in points.to_dicts()}
    assert found[1, "after_edit"] == found[1, "now"] == (1.0, 1)
    assert found[5, "after_edit"] == (1.0, 5)
    assert found[5, "now"] == (pytest.approx(0.8), 5)


def test_share_over_matrices_is_weighted_by_their_elements():
    base = {**frames.KEY, "editor": "rome", "edits": 1, "threshold": None}
    rows = []
    for name, size, mean, share in (("a", 100, 0.5, 0.2), ("b", 300, 0.1, 0.4)):
        rows += [
            base | {"parameter": name, "statistic": "mean_abs_before", "value": mean},
            base | {"parameter": name, "statistic": "l1_before", "value": mean * size},
            base | {"parameter": name, "statistic": "delta_share", "threshold": 0.077, "value": share},
            base | {"parameter": name, "statistic": "manhattan", "value": float(size)},
        ]
    table = frames.frame(rows)
    assert summaries.share_points(table)["value"].to_list() == [pytest.approx(0.35)]
    assert summaries.norm_points(table)["value"].to_list() == [400.0]


def test_heat_map_blocks_are_merged_into_means_above_the_limit():
    points = summaries.heatmap_points(TABLES["heatmaps"], most=2)
    assert points.select("edits", "value", "merged").rows() == [
        (1, pytest.approx(0.004), 2),
        (5, pytest.approx(0.02), 2),
    ]


def test_abilities_caption_states_the_numbers():
    caption = captions.abilities(TABLES["abilities"])
    assert caption.startswith("3 abilities after 1 and 5 edits, for 2 editors; n = 60 to 200 items a task.")
    assert "After 5 edits, rome changes word perplexity most: 30.00 → 45.00 (×1.50)" in caption
    assert "the largest change of a task score is −12.0 ± 5.0 points (rome, sentiment)." in caption
    assert caption.endswith("At chance before editing, so that harm is not measurable: yes/no.")


def test_efficacy_captions_state_the_numbers():
    caption = captions.efficacy(TABLES["efficacy"])
    assert "5 reliability, 5 generalization and 5 locality" in caption
    # 5 of 5 taken, all neighbours kept; 4 of 5 taken, 2 of 5 kept
    assert "rome-rect-40 100.0%, locality 100.0%; rome 80.0%, locality 40.0%" in caption
    assert (
        "rome loses most: 100.0% right after each edit, 80.0% after 5 edits (−20.0 points)"
        in captions.retention(TABLES["efficacy"])
    )


def test_weight_captions_state_the_numbers():
    caption = captions.norms(TABLES["weights"])
    assert "rome has moved the weights farthest: Manhattan distance 10.00" in caption
    assert "the largest change of mean |W| is 10.0% (rome, 0.1000 → 0.1100)" in caption
    shares = captions.shares(TABLES["weights"])
    assert "After 5 edits, δ > 0.077 for rome in 10.0% of the elements, for rome-rect-40 in 5.0%." in shares
    heat = captions.heatmaps(TABLES["heatmaps"])
    assert "belongs to rome (0.0500, 2.50 times its mean)" in heat  # 10 / mean(1, 2, 3, 10)
    assert heat.endswith("Left out, as nothing changed: rome-rect-40.")


def test_values_that_are_not_finite_are_said_and_not_plotted():
    table = TABLES["abilities"].with_columns(
        value=pl.when((pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("task") == "prose"))
        .then(math.inf)
        .otherwise(pl.col("value"))
    )
    assert "After 5 edits, rome gives values that are not finite: collapse." in captions.abilities(table)
    values = [row["value"] for rows in charts.abilities(table).to_dict()["datasets"].values() for row in rows]
    assert None in values
    assert all(value is None or math.isfinite(value) for value in values)


def test_perplexities_far_apart_get_a_logarithmic_axis():
    def scale(table):
        panel = charts.abilities(table).to_dict()["concat"][2]
        return panel["layer"][-1]["encoding"]["y"]["scale"].get("type")

    steep = TABLES["abilities"].with_columns(
        value=pl.when((pl.col("edits") == 5) & (pl.col("task") == "prose"))
        .then(5000.0)
        .otherwise(pl.col("value"))
    )
    assert scale(TABLES["abilities"]) is None
    assert scale(steep) == "log"


def test_an_editor_keeps_its_colour_where_another_is_absent():
    table = TABLES["weights"].filter(pl.col("editor") == "rome-rect-40")
    spec = charts.norms(table, ["rome", "rome-rect-40"]).to_dict()
    colour = spec["concat"][0]["layer"][-1]["encoding"]["color"]
    assert colour["scale"]["domain"] == ["rome", "rome-rect-40"]
    assert colour["legend"]["values"] == ["rome-rect-40"]


def test_charts_are_plain_values_of_their_table():
    assert isinstance(charts.efficacy(TABLES["efficacy"]), alt.ConcatChart)
    assert charts.efficacy(TABLES["efficacy"]).to_json() == charts.efficacy(TABLES["efficacy"]).to_json()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.00123, "−0.001230"),
        (12273.6, "12,274"),
        (9999.6, "10,000"),
        (9.9999, "10.00"),
        (1.5e-7, "1.5e−07"),
        (math.inf, "∞"),
        (math.nan, "not a number"),
        (None, "–"),
    ],
)
def test_number(value, shown):
    assert captions.number(value) == shown


@pytest.mark.parametrize(
    ("change", "shown"), [(-0.123, "−12.3"), (0.05, "+5.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_points(change, shown):
    assert captions.points(change) == shown
