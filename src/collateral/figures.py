"""The figures of the report: which table each plots, how it is drawn and described, and for which studies."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from collateral import captions, charts, overview, summaries

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Figure:
    """One figure: its tables, what it plots, how it is drawn and described, and what makes its tables.

    Attributes:
        name: of its files; a slug.
        title: its heading.
        family: the page that it stands on: "index", "abilities", "edits", "weights" or "cost".
        tables: names of the tables that it cannot do without.
        points: the study's own tables to what is plotted; no rows where the study has nothing for it.
        chart: the study's own tables and the order of all editors to the chart.
        caption: the study's own tables to what is plotted, n, the intervals and a finding.
        maker: what would produce its data, where a study has none.
    """

    name: str
    title: str
    family: str
    tables: tuple[str, ...]
    points: Callable[[Tables], pl.DataFrame]
    chart: Callable[[Tables, Sequence[str]], alt.ConcatChart]
    caption: Callable[[Tables], str]
    maker: str


def _of_table(
    name: str, title: str, family: str, table: str, makes: tuple[Any, Any, Any], maker: str
) -> Figure:
    points, chart, caption = makes

    def own(tables: Tables) -> pl.DataFrame:
        return tables.get(table, pl.DataFrame())

    return Figure(
        name,
        title,
        family,
        (table,),
        lambda tables: points(own(tables)),
        lambda tables, order: chart(own(tables), order),
        lambda tables: caption(own(tables)),
        maker,
    )


FIGURES = (
    Figure(
        "overview",
        "Abilities, edits and weights side by side",
        "index",
        ("normalised", "efficacy", "weights"),
        overview.points,
        overview.chart,
        overview.caption,
        "the evaluation, the probes and the comparison of weights of at least one edited checkpoint",
    ),
    _of_table(
        "abilities",
        "Abilities against the number of edits",
        "abilities",
        "abilities",
        (summaries.ability_points, charts.abilities, captions.abilities),
        "the evaluation of edited checkpoints on a suite of tasks",
    ),
    _of_table(
        "efficacy",
        "Reliability, generalization, locality",
        "edits",
        "efficacy",
        (summaries.efficacy_points, charts.efficacy, captions.efficacy),
        "the probes of edited checkpoints",
    ),
    _of_table(
        "retention",
        "Retention of earlier edits",
        "edits",
        "efficacy",
        (summaries.retention_points, charts.retention, captions.retention),
        "probes right after each edit and again at a checkpoint",
    ),
    _of_table(
        "shares",
        "Share of weights that moved far",
        "weights",
        "weights",
        (summaries.share_points, charts.shares, captions.shares),
        "the comparison of edited weights, with thresholds of δ",
    ),
    _of_table(
        "norms",
        "Mean |W| and Manhattan distance",
        "weights",
        "weights",
        (summaries.norm_points, charts.norms, captions.norms),
        "the comparison of edited weights with the unedited ones",
    ),
    _of_table(
        "heatmaps",
        "Where the weights change",
        "weights",
        "heatmaps",
        (summaries.heatmap_points, charts.heatmaps, captions.heatmaps),
        "the comparison of edited weights by block, for an editor that changes them",
    ),
)


def instances(tables: Tables, figure: Figure) -> list[tuple[str, str, Tables]]:
    """Return (name, title, own tables) of a figure for each model and data set that has points for it."""
    pairs = summaries.studies(tables)
    found: list[tuple[str, str, Tables]] = []
    for model, dataset in pairs:
        own = {
            name: summaries.of_study(tables.get(name, pl.DataFrame()), model, dataset)
            for name in figure.tables
        }
        points = figure.points(own)
        if points.is_empty() or points.filter(pl.col("editor") != summaries.UNEDITED).is_empty():
            continue
        suffix = f"-{_slug(model)}-{_slug(dataset)}" if len(pairs) > 1 else ""
        found.append((figure.name + suffix, f"{model} · {dataset}" if suffix else "", own))
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "unnamed"
