"""Which change in the weights goes with harm: rank correlations of every statistic with what is lost."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import NAMES_WIDTH, Plot, draw_cells, draw_dots, join_panels
from collateral.report.charts.rows import Tables, get_table, no_rows_error

MEAN = "mean"
OWN, ALL = "this data set", "all data sets together"
CELL_WIDTH, CELL_HEIGHT = 74, 23


def predictor_points(tables: Tables) -> pl.DataFrame:
    """Return the correlations with what they are drawn by: `scope` (this data set, or all), the strongest first.

    Strength is |rho| with the mean harm, of this data set where it has the statistic, else of all.
    """
    predictors = get_table(tables, "predictors")
    if predictors.is_empty():
        return pl.DataFrame()
    scoped = predictors.with_columns(
        scope=pl.when(pl.col("dataset").is_null()).then(pl.lit(ALL)).otherwise(pl.lit(OWN)),
        size=pl.col("rho").abs().fill_nan(None),
    )
    ranked = scoped.filter(pl.col("harm") == MEAN).sort(
        pl.col("scope") == ALL, "size", descending=[False, True], nulls_last=True, maintain_order=True
    )
    strength = ranked.unique("statistic", keep="first", maintain_order=True).select(
        "statistic", strength="size"
    )
    return (
        scoped.join(strength, on="statistic", how="left", maintain_order="left")
        .sort("strength", descending=True, nulls_last=True, maintain_order=True)
        .drop("size", "strength")
    )


def predictors_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return the statistics by the strength of their correlation with the mean harm, with intervals.

    Raises:
        CollateralError: nothing was correlated.
    """
    points = predictor_points(tables)
    mean = points.filter(pl.col("harm") == MEAN) if not points.is_empty() else points
    if mean.is_empty():
        raise no_rows_error("predictors")
    scopes = [scope for scope in (OWN, ALL) if scope in set(mean["scope"])]
    panels = [
        draw_dots(
            Plot(
                name=f"predictor_{index}",
                rows=mean.filter(pl.col("scope") == scope).select(
                    "statistic", "source", "points", "chains", "p", value="rho", lower="low", upper="high"
                ),
                title=scope,
                value_title="Spearman's ρ with harm",
                value_format="+.1f",
                domain=(-1.04, 1.04),
                references=[(0.0, "no correlation")],
                tooltip=[
                    alt.Tooltip("p:Q", format=".2~g"),
                    alt.Tooltip("points:Q", title="checkpoints"),
                    alt.Tooltip("chains:Q"),
                ],
            ),
            "statistic",
            mean["statistic"].unique(maintain_order=True).to_list(),
            "source",
            mean["source"].unique(maintain_order=True).sort().to_list(),
        )
        for index, scope in enumerate(scopes)
    ]
    key = "Strongest first. Harm is the mean loss of normalised ability. Bars: interval over chains."
    return join_panels(panels, key, 2, group="source", axes=NAMES_WIDTH)


def predictors_caption(tables: Tables) -> str:
    """Return the caption of the ranking of predictors."""
    return (
        "How closely each statistic of the changed weights goes with the mean loss of ability, as Spearman's rank "
        "correlation over checkpoints. Bars: bootstrap interval over chains, as the checkpoints of one chain are not "
        f"independent; not corrected for the number of statistics. {predictors_finding(tables)}"
    )


def predictors_finding(tables: Tables) -> str:
    """Return one sentence: the statistic that goes with the mean harm most closely, of those with an interval.

    Of this data set, where its chains are enough for intervals, else of all data sets together.
    """
    points = predictor_points(tables)
    known = points.filter((pl.col("harm") == MEAN) & pl.col("low").is_not_null()) if len(points) else points
    if known.is_empty():
        return "The chains are too few to say which statistic goes with harm."
    own = known.filter(pl.col("scope") == OWN)
    rows = (known if own.is_empty() else own).to_dicts()
    first = max(rows, key=lambda row: abs(row["rho"]))
    clear = sum(map(_excludes_zero, rows))
    where = "" if first["scope"] == OWN else f", {ALL}"
    return (
        f"{_plain(first['statistic'])} goes with harm most closely: ρ = {words.number(first['rho'], 2)}"
        f"{words.interval(first['low'], first['high'], 2)} over {first['points']} checkpoints of "
        f"{words.count(first['chains'], 'chain')}{where}; for {clear} of {len(rows)} statistics the interval "
        "leaves out zero."
    )


def _excludes_zero(row: words.Row) -> bool:
    return row["low"] is not None and row["high"] is not None and (row["low"] > 0 or row["high"] < 0)


def _plain(statistic: str) -> str:
    return statistic.replace("_", " ")


def by_ability_points(tables: Tables) -> pl.DataFrame:
    """Return the correlations with each ability's harm, of this data set where there are any, else of all."""
    points = predictor_points(tables)
    if points.is_empty() or (points["harm"] == MEAN).all():
        return pl.DataFrame()
    own = points.filter(pl.col("scope") == OWN)
    chosen = own if not own.is_empty() else points
    shown = [
        ("" if rho is None or math.isnan(rho) else f"{rho:+.2f}".replace("-", "−")) for rho in chosen["rho"]
    ]
    return chosen.with_columns(
        words=pl.Series(shown, dtype=pl.String),
        dark=(pl.col("rho").abs() > 0.6).fill_null(False),
        rho=pl.col("rho").fill_nan(None),
    )


def by_ability_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return the grid statistic x ability of correlations.

    Raises:
        CollateralError: no ability's harm was correlated.
    """
    points = by_ability_points(tables)
    if points.is_empty():
        raise no_rows_error("predictors")
    harms = [MEAN, *(name for name in points["harm"].unique(maintain_order=True).to_list() if name != MEAN)]
    statistics = points["statistic"].unique(maintain_order=True).to_list()
    rows = points.select("statistic", "harm", "rho", "low", "high", "p", "points", "chains", "words", "dark")
    tooltip = [
        alt.Tooltip("statistic:N"),
        alt.Tooltip("harm:N"),
        *(alt.Tooltip(f"{name}:Q", format="+.2f") for name in ("rho", "low", "high")),
        alt.Tooltip("p:Q", format=".2~g"),
        alt.Tooltip("points:Q", title="checkpoints"),
        alt.Tooltip("chains:Q"),
    ]
    top = alt.Axis(orient="top", labelAngle=-30, ticks=False, domain=False, labelLimit=150, labelPadding=6)
    chart = draw_cells(
        Plot("by_ability", rows, "", tooltip=tooltip),
        alt.X("harm:N", sort=harms, title=None, axis=top),
        alt.Y(
            "statistic:N",
            sort=statistics,
            title=None,
            axis=alt.Axis(ticks=False, domain=False, labelLimit=170),
        ),
        alt.Color(
            "rho:Q",
            scale=alt.Scale(scheme="blueorange", domain=[-1, 1], reverse=False),
            legend=alt.Legend(title="Spearman's ρ", gradientLength=160, tickCount=3),
        ),
        (CELL_WIDTH * len(harms), CELL_HEIGHT * len(statistics)),
    )
    return join_panels(
        [chart], "Orange: more of it, more harm. Strongest with the mean first.", 1, axes=NAMES_WIDTH
    )


def by_ability_caption(tables: Tables) -> str:
    """Return the caption of the grid of correlations."""
    points = by_ability_points(tables)
    rows = points.filter(pl.col("harm") != MEAN).drop_nulls("rho").to_dicts()
    top = words.largest(rows, lambda row: abs(row["rho"]))
    finding = "No correlation can be computed."
    if top is not None:
        finding = (
            f"Closest of all: {_plain(top['statistic'])} with the loss of {top['harm']}, ρ = "
            f"{words.number(top['rho'], 2)}{words.interval(top['low'], top['high'], 2)}."
        )
    return (
        "Spearman's rank correlation of each statistic of the changed weights with the loss of each ability, over "
        f"checkpoints (n = {words.span(points['points'].to_list())}); intervals, by bootstrap over chains, "
        f"are in the "
        f"tooltips and the data. {finding}"
    )


FIGURES = (
    Figure(
        "predictors",
        "Which change in the weights goes with harm",
        "weights",
        ("predictors",),
        predictor_points,
        predictors_chart,
        predictors_caption,
        "abilities and weights at three checkpoints or more",
        rank=240,
    ),
    Figure(
        "predictors-by-ability",
        "Weight statistics and each ability",
        "weights",
        ("predictors",),
        by_ability_points,
        by_ability_chart,
        by_ability_caption,
        "abilities and weights at three checkpoints or more",
        rank=250,
    ),
)
