"""After how many edits an ability is lost: the horizon of each editor, censored where it is not reached."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import NAMES_WIDTH, Plot, draw_dots, join_panels
from collateral.report.charts.rows import Tables, find_editors, get_table, no_rows_error, order_editors
from collateral.report.charts.style import COLUMNS
from collateral.report.figures.abilities import ABILITY_KEYS


def horizon_points(tables: Tables) -> pl.DataFrame:
    """Return the horizons with what is drawn: value, lower, upper (edits) and whether they are censored.

    value: the horizon, or the last checkpoint where it is not reached (`censored`: it lies beyond). A bound that is
    not known ends at the last checkpoint.
    """
    horizons = get_table(tables, "horizons")
    if horizons.is_empty():
        return pl.DataFrame()
    last = pl.col("last_edits").cast(pl.Float64)
    return horizons.with_columns(
        value=pl.when("reached").then(pl.col("horizon")).otherwise(last),
        lower=pl.col("low"),
        upper=pl.when(pl.col("reached") | pl.col("low").is_not_null()).then(pl.col("high").fill_null(last)),
        censored=~pl.col("reached"),
    )


def horizons_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per ability: each editor's horizon with its interval, or an arrow at its last checkpoint.

    Raises:
        CollateralError: no horizon was estimated.
    """
    points = horizon_points(tables)
    if points.is_empty():
        raise no_rows_error("horizons")
    present = find_editors(points)
    names, labels = order_editors(order, present), order_editors(order, present, only=True)
    finite = [float(value) for value in points["value"].drop_nulls().to_list()]
    log = min(finite) > 0 and max(finite) > 30 * min(finite)
    wanted = ["editor", "value", "lower", "upper", "censored", "last_edits", "n", "seeds"]
    panels = [
        draw_dots(
            Plot(
                name=f"horizon_{index}",
                rows=rows.select(wanted),
                title=rows["ability"][0],
                subtitle=[rows["task"][0]],
                value_title="edits",
                value_format=".3~r",
                log=log,
                domain=None if log else (0.0, 1.06 * max(finite)),
                tooltip=[alt.Tooltip("censored:N", title="not reached"), alt.Tooltip("n:Q", title="items")],
            ),
            "editor",
            labels,
            "editor",
            names,
        )
        for index, rows in enumerate(points.partition_by(ABILITY_KEYS, maintain_order=True))
    ]
    loss = words.percent(points["loss"][0])
    key = f"Edits until {loss} of the ability is lost. Arrow: not reached by the editor's last checkpoint."
    return join_panels(panels, key, COLUMNS, axes=NAMES_WIDTH)


def horizons_caption(tables: Tables) -> str:
    """Return the caption of the horizons."""
    points = horizon_points(tables)
    reached = points.filter(pl.col("reached")).sort("horizon", "editor", "ability").to_dicts()
    open_ended = points.height - len(reached)
    if reached:
        first = reached[0]
        finding = (
            f"{first['editor']} gets there first: {first['ability']} after {words.number(first['horizon'], 3)} "
            f"edits"
            f"{words.interval(first['low'], first['high'])}; {open_ended} of {points.height} are not reached."
        )
    else:
        finding = f"None of {points.height} is reached."
    return (
        f"Number of edits until an ability has lost {words.percent(points['loss'][0])} of its unedited value, by "
        f"ability and editor; n = {words.span(points['n'].to_list())} items. Bars: interval over the items; "
        f"arrows: "
        f"the last checkpoint of an editor that had not lost so much. {finding}"
    )


FIGURES = (
    Figure(
        "horizons",
        "Edits until an ability is lost",
        "abilities",
        ("horizons",),
        horizon_points,
        horizons_chart,
        horizons_caption,
        "the estimate of horizons, from abilities at one checkpoint or more",
        rank=30,
    ),
)
