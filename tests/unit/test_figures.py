"""The numbers behind each figure, its caption, and the validity of its chart, on frames worked by hand."""

import math
import re

import altair as alt
import polars as pl
import pytest

import figure_frames as given
import report_frames as frames
from collateral.errors import CollateralError
from collateral.report.charts import words
from collateral.report.charts.figure import find_instances
from collateral.report.charts.rows import make_legible
from collateral.report.figures import abilities, edits, heatmaps, weights
from collateral.report.figures.registry import FIGURES

TABLES = frames.tables()
OWN = {
    "batch-sizes": given.batches(),
    "batch-sequences": given.batches(),
    "datasets": given.two_datasets(),
    "final-norms": given.final(),
}
FLAT = {
    "heatmaps",
    "verdicts",
    "retention-ages",
    "predictors-by-ability",
}  # figures without a legend to click


def tables_of(figure):
    return OWN.get(figure.name, given.derived())


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_chart_is_valid_and_every_named_view_of_its_legend_exists(figure):
    spec = figure.chart(tables_of(figure), ()).to_dict()
    views = {layer["name"] for part in spec["concat"] for layer in part.get("layer", []) if "name" in layer}
    named = {view for param in spec.get("params", []) for view in param.get("views", [])}
    assert named == views
    assert bool(views) == (figure.name not in FLAT)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
@pytest.mark.parametrize("empty", ["no columns", "no rows"])
def test_empty_table_gives_no_points_and_a_clear_error(figure, empty):
    full = tables_of(figure)
    for absent in figure.tables:
        gone = pl.DataFrame() if empty == "no columns" else full[absent].clear()
        tables = {
            name: gone if name == absent else full[name]
            for name in (*figure.tables, *figure.uses)
            if name in full
        }
        assert figure.points(tables).is_empty()
        with pytest.raises(CollateralError, match=r"table '[a-z]+' has no rows"):
            figure.chart(tables, ())


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_hostile_names_stay_text_in_chart_and_caption(figure):
    tables = {
        name: table.with_columns(
            pl.col("editor").replace({"rome": frames.HOSTILE, "memit-1": frames.HOSTILE})
        )
        if "editor" in table.columns
        else table
        for name, table in tables_of(figure).items()
    }
    tables = make_legible(tables)
    assert figure.chart(tables, ()).to_dict()["concat"]
    assert figure.caption(tables)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_caption_is_sentences_without_a_gap(figure):
    caption = figure.caption(tables_of(figure))
    assert caption.endswith(".")
    assert not re.search(r"None|nan|\{|  |\[\]| \.|:\.", caption)


def test_names_of_figures_are_slugs_of_their_own_and_families_are_pages():
    names = [figure.name for figure in FIGURES]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in names)
    assert {figure.family for figure in FIGURES} == {"index", "abilities", "edits", "weights", "cost"}
    assert all(figure.maker and figure.title for figure in FIGURES)


def test_a_figure_across_data_sets_has_one_instance_a_model_and_the_others_one_a_data_set():
    tables = given.two_datasets()
    found = {figure.name: [name for name, _, _ in find_instances(tables, figure)] for figure in FIGURES}
    assert found["datasets"] == ["datasets"]
    assert found["abilities"] == ["abilities-tiny-capitals", "abilities-tiny-rivers"]
    assert found["efficacy"] == found["verdicts"] == []


LARGE = given.large()


@pytest.mark.parametrize("name", ["abilities", "before-after", "efficacy", "norms", "shares", "success", "heatmaps",
                                  "tradeoffs", "retention-ages"])  # fmt: skip
def test_a_large_study_is_drawn_with_a_few_thousand_rows(name):
    figure = next(figure for figure in FIGURES if figure.name == name)
    spec = figure.chart(LARGE, ()).to_dict()
    assert 0 < sum(len(rows) for rows in spec["datasets"].values()) <= 5000


def test_a_chart_of_several_seeds_draws_the_one_that_its_parameter_names():
    table = TABLES["abilities"]
    second = table.filter(pl.col("editor") != "unedited").with_columns(
        seed=pl.lit(2, pl.Int64), value=pl.lit(0.5)
    )
    spec = abilities.abilities_chart({"abilities": pl.concat([table, second])}).to_dict()
    assert {"name": "seed", "value": "all"} in spec["params"]
    lines = [layer for part in spec["concat"] for layer in part["layer"] if "x" in layer["encoding"]]
    assert all({"filter": "datum.seed == seed"} in layer["transform"] for layer in lines)
    seeds = {row["seed"] for rows in spec["datasets"].values() for row in rows if "seed" in row}
    assert seeds == {"all", "1", "2"}
    assert "seed" not in str(abilities.abilities_chart(TABLES).to_dict())


def test_ability_points_give_change_error_and_chance():
    rows = abilities.ability_points(TABLES)
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
    rows = abilities.ability_points({"abilities": pl.concat([table, second])}).filter(
        (pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("seed") == "all")
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
    points = edits.efficacy_points({"efficacy": frames.frame(rows)})
    row = points.filter((pl.col("kind") == "reliability") & (pl.col("how") == "generation")).row(
        0, named=True
    )
    assert (row["n"], row["facts"]) == (3, 2)
    assert row["value"] == pytest.approx(2 / 3)
    assert row["stderr"] == pytest.approx(4 / 9)  # residual sums ±2/3: sqrt(2/1 · 8/9) / 3


def test_one_fact_has_no_standard_error():
    points = edits.efficacy_points(TABLES).filter(pl.col("edits") == 1)
    assert points["stderr"].null_count() == points.height > 0


def test_each_kind_is_measured_by_its_own_column():
    row = frames.probe("rome", 1, "now", 1, "locality", True, token_accuracy=0.0, generated_match=False)
    points = edits.efficacy_points({"efficacy": frames.frame([row])})
    assert dict(points.select("how", "value").iter_rows()) == {
        "teacher-forced": 1.0,
        "probability": 1.0,
        "generation": 1.0,
    }


def test_retention_compares_the_same_edits():
    points = edits.retention_points(TABLES).filter(pl.col("editor") == "rome")
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
    assert weights.share_points({"weights": table})["value"].to_list() == [pytest.approx(0.35)]
    assert weights.norm_points({"weights": table})["value"].to_list() == [400.0]


def test_heat_map_blocks_are_merged_into_means_above_the_limit():
    points = heatmaps.heatmap_points(TABLES, most=2)
    assert points.select("edits", "value", "merged").rows() == [
        (1, pytest.approx(0.004), 2),
        (5, pytest.approx(0.02), 2),
    ]


def test_abilities_caption_states_the_numbers():
    caption = abilities.abilities_caption(TABLES)
    assert caption.startswith("3 abilities after 1 and 5 edits, for 2 editors; n = 60 to 200 items a task.")
    assert "After 5 edits, rome changes word perplexity most: 30.00 → 45.00 (×1.50)" in caption
    assert "the largest change of a task score is −12.0 ± 5.0 points (rome, sentiment)." in caption
    assert caption.endswith("At chance before editing, so that harm is not measurable: yes/no.")


def test_efficacy_captions_state_the_numbers():
    caption = edits.efficacy_caption(TABLES)
    assert "5 reliability, 5 generalization and 5 locality" in caption
    # 5 of 5 taken, all neighbours kept; 4 of 5 taken, 2 of 5 kept
    assert "rome-rect-40 100.0%, locality 100.0%; rome 80.0%, locality 40.0%" in caption
    assert (
        "rome loses most: 100.0% right after each edit, 80.0% after 5 edits (−20.0 points)"
        in edits.retention_caption(TABLES)
    )


def test_weight_captions_state_the_numbers():
    caption = weights.norms_caption(TABLES)
    assert "rome has moved the weights farthest: Manhattan distance 10.00" in caption
    assert "the largest change of mean |W| is 10.0% (rome, 0.1000 → 0.1100)" in caption
    shares = weights.shares_caption(TABLES)
    assert "After 5 edits, δ > 0.077 for rome in 10.0% of the elements, for rome-rect-40 in 5.0%." in shares
    heat = heatmaps.heatmaps_caption(TABLES)
    assert "belongs to rome (0.0500, 2.50 times its mean)" in heat  # 10 / mean(1, 2, 3, 10)
    assert heat.endswith("Left out, as nothing changed: rome-rect-40.")


def test_values_that_are_not_finite_are_said_and_not_plotted():
    table = TABLES["abilities"].with_columns(
        value=pl.when((pl.col("editor") == "rome") & (pl.col("edits") == 5) & (pl.col("task") == "prose"))
        .then(math.inf)
        .otherwise(pl.col("value"))
    )
    assert "After 5 edits, rome gives values that are not finite: collapse." in abilities.abilities_caption(
        {"abilities": table}
    )
    values = [
        row["value"]
        for rows in abilities.abilities_chart({"abilities": table}).to_dict()["datasets"].values()
        for row in rows
    ]
    assert None in values
    assert all(value is None or math.isfinite(value) for value in values)


def test_perplexities_far_apart_get_a_logarithmic_axis():
    def scale(tables):
        panel = abilities.abilities_chart(tables).to_dict()["concat"][2]
        return panel["layer"][-1]["encoding"]["y"]["scale"].get("type")

    steep = TABLES["abilities"].with_columns(
        value=pl.when((pl.col("edits") == 5) & (pl.col("task") == "prose"))
        .then(5000.0)
        .otherwise(pl.col("value"))
    )
    assert scale(TABLES) is None
    assert scale({"abilities": steep}) == "log"


def test_an_editor_keeps_its_colour_where_another_is_absent():
    table = TABLES["weights"].filter(pl.col("editor") == "rome-rect-40")
    spec = weights.norms_chart({"weights": table}, ["rome", "rome-rect-40"]).to_dict()
    colour = spec["concat"][0]["layer"][-1]["encoding"]["color"]
    assert colour["scale"]["domain"] == ["rome", "rome-rect-40"]
    assert colour["legend"]["values"] == ["rome-rect-40"]


def test_charts_are_plain_values_of_their_table():
    assert isinstance(edits.efficacy_chart(TABLES), alt.ConcatChart)
    assert edits.efficacy_chart(TABLES).to_json() == edits.efficacy_chart(TABLES).to_json()


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
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("change", "shown"), [(-0.123, "−12.3"), (0.05, "+5.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_points(change, shown):
    assert words.points(change) == shown
