"""The overview figure: abilities, edits and weights, each against the number of edits."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.rows import (
    UNEDITED,
    Tables,
    find_checkpoints,
    find_editors,
    get_table,
    no_rows_error,
)
from collateral.report.charts.style import COLUMNS, Panel, arrange_panels, draw_panel

ABILITIES, EDITS, WEIGHTS = "abilities kept", "edits stated", "weights moved"
KEY = ["editor", "seed", "edits"]
ALL = "all"
SCHEMA = {
    "panel": pl.String,
    "editor": pl.String,
    "seed": pl.String,
    "edits": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
    "seeds": pl.Int64,
}
WORDS = {
    ABILITIES: ("mean over abilities; 1 = unedited, 0 = chance", None),
    EDITS: ("reliability in free generation", ".0%"),
    WEIGHTS: ("Manhattan distance Σ |ΔW|", ".3~s"),
}


def points(tables: Tables) -> pl.DataFrame:
    """Return (panel, editor, seed, edits, value, low, high, n, seeds): one row per seed, and one for all of them.

    abilities kept: mean over the measurable abilities of (value - chance) / (unedited - chance), for perplexities
    unedited / value; n counts abilities. edits stated: share of the edits so far that free generation states; n
    counts edits. weights moved: Σ|ΔW| over the edited matrices; n counts matrices. low, high: of the row for all
    seeds, the smallest and largest seed; of one seed, the value itself.
    """
    if get_table(tables, "efficacy").is_empty():
        return pl.DataFrame(schema=SCHEMA)
    parts = [
        _seedwise(make(get_table(tables, name)), panel)
        for panel, name, make in (
            (ABILITIES, "normalised", _abilities),
            (EDITS, "efficacy", _edits),
            (WEIGHTS, "weights", _weights),
        )
    ]
    return pl.concat(parts)


def _abilities(normalised: pl.DataFrame) -> pl.DataFrame:
    if normalised.is_empty():
        return pl.DataFrame()
    usable = normalised.filter(
        pl.col("measurable") & pl.col("normalised").is_not_null() & (pl.col("editor") != UNEDITED)
    )
    return usable.group_by(KEY, maintain_order=True).agg(value=pl.col("normalised").mean(), n=pl.len())


def _edits(efficacy: pl.DataFrame) -> pl.DataFrame:
    if efficacy.is_empty():
        return pl.DataFrame()
    asked = efficacy.filter(
        (pl.col("when") == "now")
        & (pl.col("kind") == "reliability")
        & (pl.col("editor") != UNEDITED)
        & pl.col("generated_match").is_not_null()
    )
    return asked.group_by(KEY, maintain_order=True).agg(
        value=pl.col("generated_match").cast(pl.Float64).mean(), n=pl.len()
    )


def _weights(weights: pl.DataFrame) -> pl.DataFrame:
    if weights.is_empty():
        return pl.DataFrame()
    moved = weights.filter((pl.col("statistic") == "manhattan") & (pl.col("editor") != UNEDITED))
    return moved.group_by(KEY, maintain_order=True).agg(value=pl.col("value").sum(), n=pl.len())


def _seedwise(rows: pl.DataFrame, panel: str) -> pl.DataFrame:
    """Return the rows of each seed and, as seed "all", their mean with the range over seeds."""
    if rows.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    mean = rows.group_by(["editor", "edits"], maintain_order=True).agg(
        seed=pl.lit(ALL),
        value=pl.col("value").mean(),
        low=pl.col("value").min(),
        high=pl.col("value").max(),
        n=pl.col("n").max(),
        seeds=pl.len(),
    )
    each = rows.with_columns(pl.col("seed").cast(pl.String), low="value", high="value", seeds=1)
    both = [
        part.with_columns(panel=pl.lit(panel)).select(*SCHEMA).cast(pl.Schema(SCHEMA))
        for part in (mean, each)
    ]
    return pl.concat(both)


def chart(tables: Tables, order: Sequence[str] = ()) -> alt.ConcatChart:
    """Return one panel each for abilities, edits and weights, as far as they were measured, one line per editor.

    Raises:
        CollateralError: no edited model was probed.
    """
    rows = points(tables)
    if rows.is_empty():
        raise no_rows_error("efficacy")
    edits, present = find_checkpoints(rows), find_editors(rows)
    names = [*order, *(name for name in present if name not in order)]
    several = rows["seed"].n_unique() > 2
    panels = [
        Panel(
            name=f"overview_{index}",
            rows=own,
            title=str(name),
            subtitle=[WORDS[str(name)][0]],
            y_format=WORDS[str(name)][1] or ".3~g",
            domain=(-0.03, 1.03) if name == EDITS else None,
            reference={ABILITIES: 1.0, WEIGHTS: 0.0}.get(str(name)),
        )
        for index, ((name,), own) in enumerate(
            rows.partition_by("panel", as_dict=True, include_key=False, maintain_order=True).items()
        )
    ]
    key = "Solid rule: unedited model." + (" Bars: smallest to largest seed." if several else "")
    drawn = [draw_panel(panel, "editor", "editor", names, edits, present) for panel in panels]
    return arrange_panels(drawn, key, COLUMNS, seeds=True)


def caption(tables: Tables) -> str:
    """Return the caption of the overview: what the panels are, and who keeps most of what was there."""
    rows = points(tables)
    whole = rows.filter(pl.col("seed") == ALL)
    seeds = int(whole["seeds"].to_numpy().max())
    over = (
        f"Means over {seeds} seeds, bars from the smallest to the largest."
        if seeds > 1
        else "One seed: its numbers carry no bar here; the other figures give intervals over items."
    )
    return (
        "The same edits seen three ways: what the abilities kept (mean over measurable abilities; 1 is the unedited "
        "model, 0 is guessing, perplexities by ratio), how many of the edits so far are stated in free generation, "
        f"and how far the weights moved. {over} {_finding(whole)}"
    )


def _finding(rows: pl.DataFrame) -> str:
    """Return one sentence on the editors at their last checkpoints: who keeps most and least, at what success."""
    last = rows.filter(pl.col("edits") == pl.col("edits").max().over("panel", "editor"))
    kept = sorted(last.filter(pl.col("panel") == ABILITIES).to_dicts(), key=lambda row: -row["value"])
    if not kept:
        return "Abilities were not measured."
    stated = {row["editor"]: row["value"] for row in last.filter(pl.col("panel") == EDITS).to_dicts()}

    def told(row: words.Row) -> str:
        share = stated.get(row["editor"])
        success = "" if share is None else f" and states {words.percent(share)} of its edits"
        return f"{row['editor']} keeps {words.number(row['value'], 2)} after {row['edits']} edits{success}"

    ends = [kept[0]] if len(kept) == 1 else [kept[0], kept[-1]]
    return "; ".join(map(told, ends)) + "."


FIGURES = (
    Figure(
        "overview",
        "Abilities, edits and weights side by side",
        "index",
        ("efficacy",),
        points,
        chart,
        caption,
        "the probes of at least one edited checkpoint",
        uses=("normalised", "weights"),
        rank=10,
    ),
)
