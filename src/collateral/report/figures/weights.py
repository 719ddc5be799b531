"""How far the weights have moved: mean |W|, the Manhattan distance, shares of δ above thresholds."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.means import average_seeds, count_seeds, select_all_seeds, split_seeds
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
    order_editors,
    select_last,
)
from collateral.report.charts.style import Panel

MANHATTAN = "Manhattan distance"
MEAN_ABS = "mean |W|"
MOST_MATRICES = 5  # panels of single matrices


def norm_points(tables: Tables) -> pl.DataFrame:
    """Return (panel, editor, edits, value, stderr, seeds, reference): Manhattan distance, mean |W| per matrix.

    The Manhattan distance Σ|ΔW| is summed over the edited matrices (it adds up); mean |W| is per matrix, with the
    unedited matrix as reference. stderr is that of the mean over seeds; null for one seed.
    """
    return split_seeds(get_table(tables, "weights"), _norms)


def _norms(weights: pl.DataFrame) -> pl.DataFrame:
    edited = weights.filter(pl.col("editor") != UNEDITED)
    total = (
        edited.filter(pl.col("statistic") == "manhattan")
        .group_by(["seed", "editor", "edits"], maintain_order=True)
        .agg(pl.col("value").sum())
    )
    manhattan = average_seeds(total, ["editor", "edits"]).with_columns(
        panel=pl.lit(MANHATTAN), reference=pl.lit(0.0)
    )
    key = ["parameter", "editor", "edits"]
    after = average_seeds(edited.filter(pl.col("statistic") == "mean_abs_after"), key)
    before = edited.filter(pl.col("statistic") == "mean_abs_before")
    reference = before.group_by("parameter", maintain_order=True).agg(reference=pl.col("value").mean())
    means = (
        after.join(reference, on="parameter", how="left", maintain_order="left")
        .with_columns(panel=pl.format("{} of {}", pl.lit(MEAN_ABS), "parameter"))
        .sort("parameter", maintain_order=True)
    )
    columns = ["panel", "editor", "edits", "value", "stderr", "seeds", "reference"]
    return pl.concat([means.select(columns), manhattan.select(columns)])


def norms_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return mean |W| of each edited matrix and the Manhattan distance Σ|ΔW|, over the number of edits.

    Raises:
        CollateralError: the table has no norms of edited weights.
    """
    points = norm_points(tables)
    if points.is_empty():
        raise no_rows_error("weights")
    present, edits = find_editors(points), find_checkpoints(points)
    panels = [
        Panel(
            name=f"norm_{index}",
            rows=rows.select("editor", "edits", "value", "stderr", "seed"),
            title=MEAN_ABS if rows["panel"][0] != MANHATTAN else MANHATTAN,
            subtitle=[rows["panel"][0].partition(" of ")[2] or "Σ |ΔW| over all edited matrices"],
            y_format=".5~g" if rows["panel"][0] != MANHATTAN else ".3~s",
            reference=rows["reference"][0],
        )
        for index, rows in enumerate(_drawn(points).partition_by("panel", maintain_order=True))
    ]
    key = "Solid rule: unedited weights. Bars: ±1 standard error over seeds."
    return draw_lines(panels, order_editors(order, present), edits, present, key)


def _drawn(points: pl.DataFrame) -> pl.DataFrame:
    """Return the Manhattan distance, and of the matrices those that most editors edit and that change most."""
    moved = (pl.col("value") / pl.col("reference") - 1).abs().fill_nan(0.0)
    ranked = (
        points.filter(pl.col("panel") != MANHATTAN)
        .group_by("panel", maintain_order=True)
        .agg(editors=pl.col("editor").n_unique(), moved=moved.max())
        .sort("editors", "moved", descending=True, maintain_order=True)
    )
    chosen = [*ranked["panel"].head(MOST_MATRICES), MANHATTAN]
    return points.filter(pl.col("panel").is_in(chosen))


def norms_caption(tables: Tables) -> str:
    """Return the caption of the norms figure."""
    rows = select_all_seeds(norm_points(tables))
    final = select_last(rows)
    matrices = rows.filter(pl.col("panel") != MANHATTAN)["panel"].n_unique()
    far = words.largest(final.filter(pl.col("panel") == MANHATTAN).to_dicts(), lambda row: row["value"])
    grown = words.largest(
        final.filter((pl.col("panel") != MANHATTAN) & (pl.col("reference") > 0)).to_dicts(),
        lambda row: abs(row["value"] / row["reference"] - 1),
    )
    cut = ""
    if matrices > MOST_MATRICES:
        cut = f" Drawn: the {MOST_MATRICES} matrices that most editors edit; the data hold all."
    finding = ""
    if far is not None:
        finding = (
            f" After {far['edits']} edits, {far['editor']} has moved the weights farthest: Manhattan distance "
            f"{words.number(far['value'])}"
        )
        if grown is not None:
            change = 100 * (grown["value"] / grown["reference"] - 1)
            finding += (
                f"; the largest change of mean |W| is {words.number(change, 3)}% "
                f"({grown['editor']}, {words.number(grown['reference'])} → {words.number(grown['value'])})"
            )
        finding += "."
    return (
        f"Mean |W| of {'the edited matrix' if matrices == 1 else f'{matrices} edited matrices'} (what the "
        "literature on lifelong editing calls its L1 norm) and the Manhattan distance Σ|ΔW| from the unedited "
        f"weights.{cut}{words.seeds(count_seeds(rows))}{finding}"
    )


def describe_adapters(table: pl.DataFrame) -> str:
    """Return one sentence per editor that changes activations in place of weights: why its distances are zero."""
    books = table.filter(pl.col("statistic") == "codebook_keys")
    said = []
    for editor in find_editors(books):
        own = select_last(books.filter(pl.col("editor") == editor))
        size = words.span([int(value) for value in own["value"].to_list()])
        keys = f"{size} key{'' if size == '1' else 's'}"
        said.append(
            f" {editor} changes no weight: its edits live in a codebook of {keys}, "
            f"which replaces activations of {own['parameter'][0]}; its distances are zero by definition."
        )
    return "".join(said)


def share_points(tables: Tables) -> pl.DataFrame:
    """Return (threshold, editor, edits, value, stderr, seeds): share of elements with δ above each threshold.

    Over several matrices the share is weighted by their number of elements, Σ|W| / mean|W|.
    """
    return split_seeds(get_table(tables, "weights"), _shares)


def _shares(weights: pl.DataFrame) -> pl.DataFrame:
    key = ["seed", "editor", "edits", "parameter"]
    edited = weights.filter(pl.col("editor") != UNEDITED)
    sizes = (
        edited.filter(pl.col("statistic").is_in(["l1_before", "mean_abs_before"]))
        .group_by(key, maintain_order=True)
        .agg(
            total=pl.col("value").filter(pl.col("statistic") == "l1_before").first(),
            mean=pl.col("value").filter(pl.col("statistic") == "mean_abs_before").first(),
        )
        .select(*key, size=pl.when(pl.col("mean") > 0).then(pl.col("total") / pl.col("mean")))
    )
    shares = edited.filter((pl.col("statistic") == "delta_share") & pl.col("threshold").is_not_null())
    weighted = (
        shares.join(sizes, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("size").fill_null(1.0))
        .group_by(["threshold", "seed", "editor", "edits"], maintain_order=True)
        .agg(value=(pl.col("value") * pl.col("size")).sum() / pl.col("size").sum())
    )
    return average_seeds(weighted, ["threshold", "editor", "edits"]).sort("threshold", maintain_order=True)


def shares_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per threshold: share of elements whose relative change δ exceeds it, over edits.

    Raises:
        CollateralError: the table has no shares of δ.
    """
    points = share_points(tables)
    if points.is_empty():
        raise no_rows_error("weights")
    present, edits = find_editors(points), find_checkpoints(points)
    panels = [
        Panel(
            name=f"share_{index}",
            rows=rows.select("editor", "edits", "value", "stderr", "seed"),
            title=f"δ > {rows['threshold'][0]:g}",
            subtitle=["share of elements"],
            y_format=".3~%",
        )
        for index, rows in enumerate(points.partition_by("threshold", maintain_order=True))
    ]
    return draw_lines(
        panels,
        order_editors(order, present),
        edits,
        present,
        "δ = |ΔW| / |W|, element by element. Bars: ±1 standard error over seeds.",
    )


def shares_caption(tables: Tables) -> str:
    """Return the caption of the figure of δ above thresholds."""
    rows = select_all_seeds(share_points(tables))
    final = select_last(rows)
    lowest = final.filter(pl.col("threshold") == final["threshold"].min()).to_dicts()
    most, least = (pick(lowest, key=lambda row: row["value"]) for pick in (max, min))
    against = (
        f", for {least['editor']} in {words.percent(least['value'])}"
        if least["editor"] != most["editor"]
        else ""
    )
    return (
        f"Share of the elements of the edited matrices whose relative change δ = |ΔW| / |W| exceeds a threshold."
        f"{words.seeds(count_seeds(rows))} After {most['edits']} edits, δ > {most['threshold']:g} for "
        f"{most['editor']} in {words.percent(most['value'])} of the elements{against}."
    )


FIGURES = (
    Figure(
        "shares",
        "Share of weights that moved far",
        "weights",
        ("weights",),
        share_points,
        shares_chart,
        shares_caption,
        "the comparison of edited weights, with thresholds of δ",
        rank=200,
    ),
    Figure(
        "norms",
        "Mean |W| and Manhattan distance",
        "weights",
        ("weights",),
        norm_points,
        norms_chart,
        norms_caption,
        "the comparison of edited weights with the unedited ones",
        rank=210,
    ),
)
