"""Abilities against the number of edits: the RECT paper's Figures 3 and 9."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.analysis.tables.collect import is_above_chance, is_perplexity
from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.lines import draw_lines
from collateral.report.charts.means import count_seeds, seed_variance, select_all_seeds, split_seeds
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

ABILITY_KEYS = ("suite", "ability", "task", "metric")
DRAWN_UP_TO = 32.0  # times the unedited perplexity: a collapsed model's 10⁴⁰ would hide all the others
AT_CHANCE = "at chance before editing: harm not measurable"
METRICS = {"acc": "accuracy", "acc_norm": "length-normalised accuracy"}


def ability_points(tables: Tables) -> pl.DataFrame:
    """Return one row per (ability, task, metric, editor, edits) of the primary metrics, unedited included.

    value: mean over seeds. stderr² = mean(stderr²) + s²/k: the items are the same under every seed, so that
    their error does not shrink with k seeds, while the error of the seeds does.
    change = value - unedited; change_stderr² = stderr² + unedited_stderr². That takes the two as independent;
    they share their items, so that it is an upper bound wherever the two are positively correlated.
    lower, upper: where the table of comparisons has the cell, the interval of the paired difference (of the paired
    ratio, for perplexities), laid around the unedited value.
    at_chance: the unedited value - 2 stderr does not exceed chance.
    """
    points = split_seeds(get_table(tables, "abilities"), _means)
    compared = get_table(tables, "comparisons")
    if points.is_empty() or compared.is_empty():
        return points
    key = [*ABILITY_KEYS, "editor", "edits"]
    ratio = pl.col("scale") == "log_ratio"
    bounds = [
        pl.when(ratio)
        .then(pl.col("unedited") * pl.col(end).exp())
        .otherwise(pl.col("unedited") + pl.col(end))
        for end in ("low", "high")
    ]
    paired = compared.select(*key, lower=bounds[0], upper=bounds[1]).with_columns(seed=pl.lit("all"))
    return points.join(paired, on=[*key, "seed"], how="left", maintain_order="left")


def _means(abilities: pl.DataFrame) -> pl.DataFrame:
    items, seeds = pl.col("stderr").pow(2).mean(), seed_variance("value")
    means = (
        abilities.filter(pl.col("primary"))
        .group_by([*ABILITY_KEYS, "editor", "edits"], maintain_order=True)
        .agg(
            pl.col("value").mean(),
            stderr=pl.when(items.is_not_null() | seeds.is_not_null())
            .then((items.fill_null(0.0) + seeds.fill_null(0.0)).sqrt())
            .otherwise(None),
            n=pl.col("n").max(),
            chance=pl.col("chance").max(),
            higher_is_better=pl.col("higher_is_better").first(),
            seeds=pl.len(),
        )
    )
    reference = means.filter(pl.col("editor") == UNEDITED).select(
        *ABILITY_KEYS, unedited="value", unedited_stderr="stderr"
    )
    bounded = pl.col("value").is_between(0, 1) | ~pl.col("value").is_finite()
    above = is_above_chance(pl.col("unedited"), pl.col("unedited_stderr").fill_null(0.0), pl.col("chance"))
    return means.join(reference, on=ABILITY_KEYS, how="left", maintain_order="left").with_columns(
        change=pl.col("value") - pl.col("unedited"),
        change_stderr=(pl.col("stderr").pow(2) + pl.col("unedited_stderr").pow(2)).sqrt(),
        is_share=(bounded.all() & pl.col("higher_is_better").all()).over(ABILITY_KEYS),
        at_chance=(~above).fill_null(False),
    )


def abilities_chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel per ability (primary metric) over the number of edits, one line per editor.

    Raises:
        CollateralError: the table has no edited rows.
    """
    points = ability_points(tables)
    if points.is_empty() or not find_checkpoints(points):
        raise no_rows_error("abilities")
    present, edits = find_editors(points), find_checkpoints(points)
    panels = [
        build_ability_panel(f"ability_{index}", rows, marks_chance=bool(points["at_chance"].any()))
        for index, rows in enumerate(points.partition_by(ABILITY_KEYS, maintain_order=True))
    ]
    return draw_lines(panels, order_editors(order, present), edits, present, f"{RULES} {_bars(points)}")


RULES = "Solid rule: unedited model. Dotted rule: chance."


def clip_perplexities(rows: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the rows of one ability with perplexities that a scale can hold, and the words that say so."""
    first = rows.row(0, named=True)
    if not is_perplexity(first["metric"]) or not first["unedited"]:
        return rows, ""
    top = DRAWN_UP_TO * first["unedited"]
    too_large = pl.col("value").is_finite() & (pl.col("value") > top)
    if rows.filter(too_large).is_empty():
        return rows, ""
    held = [name for name in ("value", "lower", "upper") if name in rows.columns]
    exact = rows.with_columns(exact=pl.col("value"))
    within = (
        pl.when(pl.col(held).is_finite()).then(pl.col(held).clip(upper_bound=top)).otherwise(pl.col(held))
    )
    return exact.with_columns(within), f" · drawn up to ×{DRAWN_UP_TO:g}"


def metric_title(row: words.Row) -> str:
    """Return what a metric is called, and which way is better where it is not up."""
    metric = str(row["metric"])
    return METRICS.get(metric, metric.replace("_", " ")) + (
        "" if row["higher_is_better"] else ", lower is better"
    )


def _bars(points: pl.DataFrame) -> str:
    if "lower" in points.columns and points["lower"].is_not_null().any():
        return "Bars: interval of the paired difference to the unedited model."
    return "Bars: ±1 standard error."


def build_ability_panel(
    name: str,
    rows: pl.DataFrame,
    group: str = "editor",
    title: str = "",
    marks_chance: bool = False,
) -> Panel:
    """Return the panel of one ability: its lines, the rules of the unedited model and of chance, and its words.

    Args:
        name: of the view.
        rows: of one ability, unedited included.
        group: column that tells the lines apart.
        title: stands before the ability.
        marks_chance: whether some panel of the figure says that its ability is at chance.
    """
    first = rows.row(0, named=True)
    rows, cut = clip_perplexities(rows)
    warn = bool(rows["at_chance"].any())
    # An empty second line keeps the panels of a row level where one of them carries the mark.
    second = [AT_CHANCE if warn else ""] if marks_chance else []
    wanted = [group, "edits", "value", "stderr", "n", "change", "lower", "upper", "seed", "exact"]
    return Panel(
        name=name,
        rows=rows.filter(pl.col("editor") != UNEDITED).select(pl.col(c) for c in wanted if c in rows.columns),
        title=title + first["ability"],
        subtitle=[f"{first['task']} · n = {first['n']}{cut}", *second],
        y_title=metric_title(first),
        y_format=".0%" if first["is_share"] else ".3~g",
        reference=first["unedited"],
        chance=first["chance"],
        warn=warn,
        tooltip=[
            alt.Tooltip("change:Q", title="change from unedited", format="+.4~g"),
            alt.Tooltip("n:Q", title="items"),
            *([alt.Tooltip("exact:Q", format=".4~g")] if cut else []),
        ],
    )


def _log_ratio(row: words.Row) -> float | None:
    if not (row["value"] and row["unedited"]) or min(row["value"], row["unedited"]) <= 0:
        return None
    return abs(math.log(row["value"] / row["unedited"]))


def abilities_finding(tables: Tables) -> str:
    """Return one sentence: who changes perplexity most at the last checkpoint, or else which share changes most."""
    rows = select_last(select_all_seeds(ability_points(tables))).to_dicts()
    broken = sorted({row["editor"] for row in rows if not math.isfinite(row["value"])})
    if broken:
        return f"After {rows[0]['edits']} edits, {words.join(broken)} gives values that are not finite: collapse."
    worst = words.largest([row for row in rows if is_perplexity(row["metric"])], _log_ratio)
    sentences = []
    if worst is not None:
        ratio = worst["value"] / worst["unedited"]
        sentences.append(
            f"After {worst['edits']} edits, {worst['editor']} changes {worst['metric'].replace('_', ' ')} most: "
            f"{words.number(worst['unedited'])} → {words.number(worst['value'])} (×{words.number(ratio, 3)})"
        )
    sized = [row for row in rows if row["is_share"] and not row["at_chance"] and row["change"] is not None]
    most = words.largest(sized, lambda row: abs(row["change"]))
    if most is not None:
        error = most["change_stderr"]
        bars = "" if error is None else f" ± {words.number(100 * error, 2)}"
        verdict = "" if error is None or abs(most["change"]) > 2 * error else ", within two standard errors"
        start = "the" if sentences else f"After {most['edits']} edits, the"
        sentences.append(
            f"{start} largest change of a task score is {words.points(most['change'])}{bars} points "
            f"({most['editor']}, {most['ability']}{verdict})"
        )
    return "; ".join(sentences) + "." if sentences else "No change from the unedited model can be computed."


def abilities_caption(tables: Tables) -> str:
    """Return the caption: what, n, the bars, a finding, what is at chance, and what was not evaluated."""
    rows = select_all_seeds(ability_points(tables))
    edits, names = find_checkpoints(rows), find_editors(rows)
    seeds = count_seeds(rows.filter(pl.col("editor") != UNEDITED))
    panels = rows.select(ABILITY_KEYS).unique().height
    spread = f" and over {seeds} seeds" if seeds > 1 else ""
    if _bars(rows).startswith("Bars: interval"):
        bars = (
            "Bars: interval of the difference to the unedited model, paired by item, not corrected for the number "
            f"of comparisons, laid around the unedited score; where none is given, ±1 standard error over "
            f"items{spread}."
        )
    else:
        bars = f"Bars: ±1 standard error over items{spread}."
    chance = rows.filter(pl.col("at_chance"))["ability"].unique(maintain_order=True).to_list()
    marked = (
        f" At chance before editing, so that harm is not measurable: {words.join(chance)}." if chance else ""
    )
    return (
        f"{words.count(panels, 'ability') if panels == 1 else f'{panels} abilities'} {words.after(edits)}, for "
        f"{words.count(len(names), 'editor')}; n = {words.span(rows['n'].to_list())} items a task. {bars} "
        f"{abilities_finding(tables)}{marked}{_collapsed(get_table(tables, 'collapses'))}"
    )


def _collapsed(collapses: pl.DataFrame) -> str:
    """Return the sentence about chains that stop because their model has collapsed."""
    if collapses.is_empty():
        return ""
    skipped = collapses.filter(pl.col("collapsed") & ~pl.col("evaluated"))["editor"].unique().to_list()
    first = (
        collapses.filter(pl.col("collapsed") & pl.col("editor").is_in(skipped))
        .group_by("editor", maintain_order=True)
        .agg(pl.col("edits").min())
        .rows()
    )
    told = [f"{editor} at {edits}" for editor, edits in first]
    return f" Not evaluated any further, collapsed: {words.join(told)} edits." if told else ""


FIGURES = (
    Figure(
        "abilities",
        "Abilities against the number of edits",
        "abilities",
        ("abilities",),
        ability_points,
        abilities_chart,
        abilities_caption,
        "the evaluation of edited checkpoints on a suite of tasks",
        uses=("comparisons", "collapses"),
        rank=60,
    ),
)
