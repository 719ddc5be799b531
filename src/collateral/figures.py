"""The figures of the report: which table each plots, how it is drawn and described, and for which studies."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from collateral import captions, charts, summaries

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Figure:
    """One figure: its table, what it plots, how it is drawn and described, and what makes its table."""

    name: str
    title: str
    table: str
    points: Callable[[pl.DataFrame], pl.DataFrame]
    chart: Callable[[pl.DataFrame, Sequence[str]], alt.ConcatChart]
    caption: Callable[[pl.DataFrame], str]
    maker: str


FIGURES = (
    Figure(
        "abilities",
        "Abilities against the number of edits",
        "abilities",
        summaries.ability_points,
        charts.abilities,
        captions.abilities,
        "the evaluation of edited checkpoints on a suite of tasks",
    ),
    Figure(
        "efficacy",
        "Reliability, generalization, locality",
        "efficacy",
        summaries.efficacy_points,
        charts.efficacy,
        captions.efficacy,
        "the probes of edited checkpoints",
    ),
    Figure(
        "retention",
        "Retention of earlier edits",
        "efficacy",
        summaries.retention_points,
        charts.retention,
        captions.retention,
        "probes right after each edit and again at a checkpoint",
    ),
    Figure(
        "shares",
        "Share of weights that moved far",
        "weights",
        summaries.share_points,
        charts.shares,
        captions.shares,
        "the comparison of edited weights, with thresholds of δ",
    ),
    Figure(
        "norms",
        "Mean |W| and Manhattan distance",
        "weights",
        summaries.norm_points,
        charts.norms,
        captions.norms,
        "the comparison of edited weights with the unedited ones",
    ),
    Figure(
        "heatmaps",
        "Where the weights change",
        "heatmaps",
        summaries.heatmap_points,
        charts.heatmaps,
        captions.heatmaps,
        "the comparison of edited weights by block, for an editor that changes them",
    ),
)


def instances(tables: Tables, figure: Figure) -> list[tuple[str, str, pl.DataFrame]]:
    """Return (name, title, own table) of a figure for each model and data set that has points for it."""
    pairs = summaries.studies(tables)
    found = []
    for model, dataset in pairs:
        own = summaries.of_study(tables.get(figure.table, pl.DataFrame()), model, dataset)
        points = figure.points(own)
        if points.is_empty() or points.filter(pl.col("editor") != summaries.UNEDITED).is_empty():
            continue
        suffix = f"-{_slug(model)}-{_slug(dataset)}" if len(pairs) > 1 else ""
        found.append((figure.name + suffix, f"{model} · {dataset}" if suffix else "", own))
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "unnamed"
