"""What a figure is, and the studies that have points for it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from collateral.report.charts.rows import UNEDITED, Tables, find_studies, get_table, select_study


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
        uses: names of tables that it uses where they are.
        across: one figure per model over its data sets, in place of one per data set.
        rank: figures of a page stand in this order; those that state none stand last.
    """

    name: str
    title: str
    family: str
    tables: tuple[str, ...]
    points: Callable[[Tables], pl.DataFrame]
    chart: Callable[[Tables, Sequence[str]], alt.ConcatChart]
    caption: Callable[[Tables], str]
    maker: str
    uses: tuple[str, ...] = ()
    across: bool = False
    rank: int = 1000


def find_instances(tables: Tables, figure: Figure) -> list[tuple[str, str, Tables]]:
    """Return (name, title, own tables) of a figure for each model and data set that has points for it.

    A figure across data sets has one instance per model. Name and title tell instances apart where there are several.
    """
    pairs = find_studies(tables)
    scopes: list[tuple[tuple[str, ...], str]] = [(pair, " · ".join(pair)) for pair in pairs]
    if figure.across:
        scopes = [((model,), model) for model in dict.fromkeys(model for model, _ in pairs)]
    wanted = (*figure.tables, *figure.uses)
    found: list[tuple[str, str, Tables]] = []
    for scope, title in scopes:
        own = {name: select_study(get_table(tables, name), *scope) for name in wanted}
        points = figure.points(own)
        if points.is_empty() or ("editor" in points.columns and (points["editor"] == UNEDITED).all()):
            continue
        suffix = "".join(f"-{_slug(part)}" for part in scope) if len(scopes) > 1 else ""
        found.append((figure.name + suffix, title if suffix else "", own))
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "unnamed"
