"""Success of the edits beside the L1 norm of the weights, over edits and at the end: the D4S paper's bottleneck."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.marks import NAMES_WIDTH, Plot, draw_dots, join_panels
from collateral.report.charts.means import (
    add_bars,
    average_probes,
    average_seeds,
    select_all_seeds,
    split_seeds,
)
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_each_last,
)
from collateral.report.charts.style import Panel
from collateral.report.figures.edits import score_probes

NEW, ALL, NORM = "newest edits", "all edits so far", "L1 norm of the weights"
SAID = {
    NEW: "right after each, since the checkpoint before",
    ALL: "at the checkpoint",
    NORM: "Σ|W| of the edited matrices, unedited: 1",
}


def success_points(tables: Tables) -> pl.DataFrame:
    """Return (panel, editor, edits, value, stderr, seed): teacher-forced success of edits, and the L1 norm.

    newest edits: those since the checkpoint before, each right after it was made. all edits so far: at the
    checkpoint. The norm is Σ|W| over the edited matrices divided by that of the unedited ones.
    """
    efficacy, weights = get_table(tables, "efficacy"), get_table(tables, "weights")
    if efficacy.is_empty() or weights.is_empty():
        return pl.DataFrame()
    chains = weights["editor"].unique().to_list()
    success = split_seeds(efficacy.filter(pl.col("editor").is_in(chains)), _success)
    points = pl.concat([success, split_seeds(weights, _norm)], how="diagonal_relaxed")
    return points.filter(pl.col("editor") != UNEDITED)


def _success(efficacy: pl.DataFrame) -> pl.DataFrame:
    asked = efficacy.filter((pl.col("kind") == "reliability") & pl.col("when").is_in(["now", "after_edit"]))
    parts = [
        average_probes(
            score_probes(asked.filter(pl.col("when") == when)).filter(pl.col("how") == "teacher-forced"),
            ["editor", "edits"],
        ).with_columns(panel=pl.lit(panel))
        for panel, when in ((NEW, "after_edit"), (ALL, "now"))
    ]
    return pl.concat(parts)


def _norm(weights: pl.DataFrame) -> pl.DataFrame:
    key = ["editor", "edits", "seed"]
    total = (
        weights.filter(pl.col("statistic").is_in(["l1_before", "l1_after"]))
        .group_by([*key, "statistic"], maintain_order=True)
        .agg(pl.col("value").sum())
        .pivot(on="statistic", index=key, values="value", maintain_order=True)
    )
    if not {"l1_before", "l1_after"} <= set(total.columns):
        return pl.DataFrame()
    ratio = total.select(*key, value=pl.col("l1_after") / pl.col("l1_before"))
    return average_seeds(ratio, ["editor", "edits"]).with_columns(panel=pl.lit(NORM))


def success_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return the success of the newest edits, of all edits so far, and the L1 norm, over the number of edits.

    Raises:
        CollateralError: there are no probes of edits, or no norms.
    """
    points = success_points(tables)
    if points.is_empty():
        raise no_rows_error("efficacy")
    panels = [
        Panel(
            name=f"success_{index}",
            rows=points.filter(pl.col("panel") == panel).select(
                "editor", "edits", "value", "stderr", "n", "seed"
            ),
            title=panel,
            subtitle=[said],
            y_title=None if panel == NORM else "reliability, teacher-forced",
            y_format=".4~g" if panel == NORM else ".0%",
            domain=None if panel == NORM else (-0.03, 1.03),
            reference=1.0 if panel == NORM else None,
            tooltip=[] if panel == NORM else [alt.Tooltip("n:Q", title="probes")],
        )
        for index, (panel, said) in enumerate(SAID.items())
    ]
    panels = [panel for panel in panels if not panel.rows.is_empty()]
    present = find_editors(points)
    key = "Bars: ±1 standard error, clustered by fact; of the norm, over seeds."
    return draw_lines(panels, order_editors(order, present), find_checkpoints(points), present, key)


def success_caption(tables: Tables) -> str:
    """Return the caption of success and norm."""
    points = select_all_seeds(success_points(tables))
    final = select_each_last(points)
    norms = {row["editor"]: row for row in final.filter(pl.col("panel") == NORM).to_dicts()}
    grown = words.largest(list(norms.values()), lambda row: row["value"])
    finding = "No norm is known."
    if grown is not None:
        held = final.filter((pl.col("panel") == ALL) & (pl.col("editor") == grown["editor"]))[
            "value"
        ].to_list()
        kept = f"; {words.percent(held[0])} of its edits hold then" if held else ""
        finding = (
            f"The norm grows most under {grown['editor']}, to {words.number(grown['value'], 4)} times the "
            f"unedited one "
            f"after {grown['edits']} edits{kept}."
        )
    probes = [n for n in final["n"].to_list() if n is not None]
    return (
        f"Success of the edits and the L1 norm of the edited matrices, {words.after(find_checkpoints(points))}; n = "
        f"{words.span(probes) if probes else 'no'} probes at the last checkpoint. Bars: ±1 standard error, "
        f"clustered by "
        f"fact; of the norm, over seeds. {finding}"
    )


def final_points(tables: Tables) -> pl.DataFrame:
    """Return (panel, editor, edits, value, lower, upper) at each editor's last checkpoint: norm, and ability left.

    ability left: mean over measurable abilities and seeds, with ±1 standard error over seeds.
    """
    weights, normalised = get_table(tables, "weights"), get_table(tables, "normalised")
    if weights.is_empty() or normalised.is_empty():
        return pl.DataFrame()
    left = normalised.filter(pl.col("measurable") & (pl.col("editor") != UNEDITED))
    each = left.group_by(["editor", "edits", "seed"], maintain_order=True).agg(
        value=pl.col("normalised").mean()
    )
    ability = average_seeds(each, ["editor", "edits"]).with_columns(panel=pl.lit("ability left"))
    norm = _norm(weights)
    if norm.is_empty() or ability.is_empty():
        return pl.DataFrame()
    columns = ["panel", "editor", "edits", "value", "stderr", "seeds"]
    both = pl.concat([norm.select(columns), ability.select(columns)])
    common = both.filter(pl.col("panel").n_unique().over("editor", "edits") == 2)
    return add_bars(select_each_last(common))


def final_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return the L1 norm of the final models beside what is left of their abilities, editors by the norm.

    Raises:
        CollateralError: no checkpoint has both.
    """
    points = final_points(tables)
    if points.is_empty():
        raise no_rows_error("weights")
    names = order_editors(order, find_editors(points))
    labels = points.filter(pl.col("panel") == NORM).sort("value", "editor")["editor"].to_list()
    panels = []
    for index, (panel, title) in enumerate(((NORM, SAID[NORM]), ("ability left", "1: unedited, 0: chance"))):
        rows = points.filter(pl.col("panel") == panel).drop("panel")
        low, high = rows["value"].to_numpy().min(), rows["value"].to_numpy().max()
        plot = Plot(
            name=f"final_{index}",
            rows=rows,
            title=panel,
            value_title=title,
            value_format=".4~g",
            log=bool(low > 0 and high > 30 * low),
            references=[(1.0, "unedited")],
            tooltip=[alt.Tooltip("edits:Q"), alt.Tooltip("seeds:Q")],
        )
        panels.append(draw_dots(plot, "editor", labels, "editor", names))
    return join_panels(
        panels, "Each editor's final model. Bars: ±1 standard error over seeds.", 2, axes=NAMES_WIDTH
    )


def final_caption(tables: Tables) -> str:
    """Return the caption of the final models."""
    points = final_points(tables)
    wide = points.pivot(on="panel", index=["editor", "edits"], values="value", maintain_order=True)
    most, least = (
        wide.sort(NORM, "editor", descending=[down, False]).row(0, named=True) for down in (True, False)
    )

    def told(row: words.Row) -> str:
        return (
            f"{row['editor']}: norm × {words.number(row[NORM], 4)}, {words.percent(row['ability left'])} of the "
            f"abilities "
            f"left after {row['edits']} edits"
        )

    return (
        "Final models: the L1 norm Σ|W| of the edited matrices against the unedited one, beside what is left of "
        "the "
        f"abilities (mean of those that are measurable); {words.count(wide.height, 'editor')} after "
        f"{words.span(wide['edits'].to_list())} edits. Bars: ±1 standard error over seeds, where there are "
        f"several. "
        f"Largest and smallest norm: {told(most)}; {told(least)}."
    )


FIGURES = (
    Figure(
        "success",
        "Success of edits and the L1 norm",
        "weights",
        ("efficacy", "weights"),
        success_points,
        success_chart,
        success_caption,
        "probes of edits, and the comparison of edited weights with the unedited ones",
        rank=180,
    ),
    Figure(
        "final-norms",
        "L1 norm and abilities of the final models",
        "weights",
        ("weights", "normalised"),
        final_points,
        final_chart,
        final_caption,
        "abilities and weights at one checkpoint of an editor",
        rank=190,
    ),
)
