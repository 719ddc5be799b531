"""Edit success and abilities per regulariser and share of the update kept (RECT, Figures 7, 8, 17, 18)."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.marks import Plot, draw_curves, join_panels
from collateral.report.charts.means import add_bars, average_probes, select_all_seeds
from collateral.report.charts.rows import UNEDITED, Tables, get_table, no_rows_error
from collateral.report.charts.style import COLUMNS
from collateral.report.figures.abilities import ABILITY_KEYS, ability_points, metric_title
from collateral.report.figures.edits import KINDS, score_probes

NONE = "none"
FAMILY = ("method", "batch_size", "editing")


def _families(tables: Tables) -> pl.DataFrame:
    """Return (editor, family, regularizer, keep) of editors that differ in nothing but the regulariser's settings.

    A family has a method, a size of batch and a way of editing; it counts where some editor of it keeps a share.
    Editors without a regulariser keep 100 %.
    """
    table = get_table(tables, "editors")
    if table.is_empty():
        return table
    bare = pl.col("regularizer").is_null() | pl.col("regularizer").is_in([NONE, ""])
    labelled = table.with_columns(
        regularizer=pl.when(bare).then(pl.lit(NONE)).otherwise(pl.col("regularizer")),
        keep=pl.when(bare).then(100.0).otherwise(pl.col("keep").cast(pl.Float64)),
        family=pl.format(
            "{}{}{}",
            "method",
            pl.when(pl.col("editing") == "single")
            .then(pl.lit(", single edits"))
            .otherwise(pl.lit(", in sequence")),
            pl.when(pl.col("batch_size") > 1)
            .then(pl.format(", batches of {}", "batch_size"))
            .otherwise(pl.lit("")),
        ),
    ).drop_nulls("keep")
    several = (pl.col("regularizer") != NONE).any().over(FAMILY) & (pl.len().over(FAMILY) > 1)
    return labelled.filter(several).select("editor", "family", "regularizer", "keep")


def kept_edits_points(tables: Tables) -> pl.DataFrame:
    """Return (family, kind, editor, regularizer, keep, value, stderr, n, facts, lower, upper) right after each edit.

    Teacher-forced reliability, generalization and locality of all edits of an editor, of the same facts throughout a
    family.
    """
    families, efficacy = _families(tables), get_table(tables, "efficacy")
    if families.is_empty() or efficacy.is_empty():
        return pl.DataFrame()
    probes = efficacy.filter(pl.col("when") == "after_edit").join(
        families, on="editor", how="inner", maintain_order="left"
    )
    if probes.is_empty():
        return pl.DataFrame()
    asked = ["seed", "fact_id", "kind", "probe"]
    per_family = pl.col("editor").n_unique().over("family")
    shared = probes.unique(["editor", *asked], keep="first", maintain_order=True).filter(
        (pl.col("editor").n_unique().over("family", *asked) == per_family) & (per_family > 1)
    )
    scores = score_probes(shared).filter(pl.col("how") == "teacher-forced")
    means = average_probes(scores, ["kind", "editor"])
    return add_bars(
        means.join(families, on="editor", how="left", maintain_order="left").sort(
            "family", pl.col("kind").cast(pl.Enum(KINDS)), "regularizer", "keep", maintain_order=True
        )
    )


def kept_abilities_points(tables: Tables) -> pl.DataFrame:
    """Return the points of `ability_points` of each family at the last checkpoint that all its editors share."""
    families, points = _families(tables), select_all_seeds(ability_points(tables))
    if families.is_empty() or points.is_empty():
        return pl.DataFrame()
    own = points.filter(pl.col("editor") != UNEDITED).join(
        families, on="editor", how="inner", maintain_order="left"
    )
    if own.is_empty():
        return pl.DataFrame()
    count = pl.col("editor").n_unique()
    shared = own.filter((count.over("family", "edits") == count.over("family")) & (count.over("family") > 1))
    final = shared.filter(pl.col("edits") == pl.col("edits").max().over("family"))
    return add_bars(final).sort("family", "regularizer", "keep", maintain_order=True)


def _curve(name: str, rows: pl.DataFrame, title: str, subtitle: str, **more: object) -> Plot:
    """Return the panel of a family: its regularised editors, on the rule of the one without."""
    bare = rows.filter(pl.col("regularizer") == NONE)
    references = [(float(value), "without a regulariser") for value in bare["value"]]
    references += list(more.pop("references", ()))  # type: ignore[call-overload]
    columns = ["editor", "regularizer", "keep", "value", "lower", "upper", "n"]
    kept = rows.filter(pl.col("regularizer") != NONE).select(columns)
    return Plot(
        name=name,
        rows=kept,
        title=title,
        subtitle=[subtitle],
        references=references,
        tooltip=[alt.Tooltip("keep:Q", title="kept, %"), alt.Tooltip("editor:N"), alt.Tooltip("n:Q")],
        **more,  # type: ignore[arg-type]
    )


def _drawn(plots: Sequence[Plot], key: str) -> alt.ConcatChart:
    shares = sorted({float(keep) for plot in plots for keep in plot.rows["keep"]})
    groups = list(dict.fromkeys(name for plot in plots for name in plot.rows["regularizer"]))
    x = alt.X(
        "keep:Q",
        title="share of the update kept, %",
        scale=alt.Scale(
            domain=[min(shares), max(shares)] if len(shares) > 1 else [0, 100], padding=14, nice=False
        ),
        axis=alt.Axis(values=shares, format=".3~r", grid=False),
    )
    panels = [draw_curves(plot, x, "regularizer", groups, "regulariser") for plot in plots]
    return join_panels(panels, key, COLUMNS, group="regularizer")


def kept_edits_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per family and kind of probe over the share kept, one line per regulariser.

    Raises:
        CollateralError: no two editors differ in their regulariser alone.
    """
    points = kept_edits_points(tables)
    if points.is_empty():
        raise no_rows_error("editors")
    plots = [
        _curve(f"kept_edits_{index}", rows, str(kind), str(family), value_format=".0%", domain=(-0.03, 1.03))
        for index, ((family, kind), rows) in enumerate(_split(points, "kind").items())
    ]
    return _drawn(plots, "Dashed rule: the same editor without a regulariser. Bars: ±1 standard error.")


def kept_abilities_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per family and ability over the share kept, one line per regulariser.

    Raises:
        CollateralError: no two editors differ in their regulariser alone.
    """
    points = kept_abilities_points(tables)
    if points.is_empty():
        raise no_rows_error("editors")
    plots = []
    for index, ((family, *_), rows) in enumerate(_split(points, *ABILITY_KEYS).items()):
        first = rows.row(0, named=True)
        plots.append(
            _curve(
                f"kept_abilities_{index}",
                rows,
                first["ability"],
                f"{family}, after {first['edits']} edits",
                value_title=metric_title(first),
                value_format=".0%" if first["is_share"] else ".3~s",
                references=[] if first["unedited"] is None else [(first["unedited"], "unedited")],
            )
        )
    key = "Solid rule: unedited model. Dashed rule: the same editor without a regulariser."
    return _drawn(plots, key)


def _split(points: pl.DataFrame, *by: str) -> dict[tuple[object, ...], pl.DataFrame]:
    return points.partition_by(["family", *by], as_dict=True, maintain_order=True)


def kept_edits_caption(tables: Tables) -> str:
    """Return the caption of edit success by share kept."""
    points = kept_edits_points(tables)
    told = []
    for (family,), rows in _split(points.filter(pl.col("kind") == "reliability")).items():
        best = (
            rows.filter(pl.col("regularizer") != NONE)
            .sort("value", "keep", descending=[True, False])
            .row(0, named=True)
        )
        bare = rows.filter(pl.col("regularizer") == NONE)["value"].to_list()
        without = f", {words.percent(bare[0])} without" if bare else ""
        told.append(
            f"{family}: reliability {words.percent(best['value'])} at best ({best['regularizer']}, "
            f"{words.number(best['keep'], 3)}% kept){without}"
        )
    return (
        "Edit success right after each edit by the share of the update that a regulariser keeps; teacher-forced, "
        "the same "
        f"facts throughout ({words.span(points['facts'].to_list())}), n = "
        f"{words.span(points['n'].to_list())} probes. "
        f"Bars: ±1 standard error, clustered by fact. {'; '.join(told)}."
    )


def kept_abilities_caption(tables: Tables) -> str:
    """Return the caption of abilities by share kept."""
    points = kept_abilities_points(tables)
    told = []
    for (family,), rows in _split(points.filter(pl.col("is_share") & ~pl.col("at_chance"))).items():
        means = rows.group_by("editor", "regularizer", "keep", maintain_order=True).agg(
            pl.col("change").mean()
        )
        kept = means.filter(pl.col("regularizer") != NONE).sort("change", descending=True).to_dicts()
        bare = means.filter(pl.col("regularizer") == NONE)["change"].to_list()
        without = f" against {words.points(bare[0])} without" if bare else ""
        told.append(
            f"{family}: mean change of task scores {words.points(kept[0]['change'])} points at best "
            f"({kept[0]['regularizer']}, {words.number(kept[0]['keep'], 3)}% kept){without}"
        )
    return (
        "Abilities by the share of the update that a regulariser keeps, at the last checkpoint that the editors "
        "of a family "
        f"share; n = {words.span(points['n'].to_list())} items. Bars: paired interval laid around the "
        f"unedited score, "
        f"else ±1 standard error. {'; '.join(told) if told else 'No task score is measurable'}."
    )


FIGURES = (
    Figure(
        "kept-edits",
        "Edit success by share of the update kept",
        "edits",
        ("editors", "efficacy"),
        kept_edits_points,
        kept_edits_chart,
        kept_edits_caption,
        "editors that differ in their regulariser alone, with probes right after each edit",
        rank=140,
    ),
    Figure(
        "kept-abilities",
        "Abilities by share of the update kept",
        "abilities",
        ("editors", "abilities"),
        kept_abilities_points,
        kept_abilities_chart,
        kept_abilities_caption,
        "editors that differ in their regulariser alone, with abilities at a common checkpoint",
        uses=("comparisons",),
        rank=150,
    ),
)
