"""Each figure of a report, drawn once: its points, its chart as a Vega-Lite document, its caption."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from altair.utils.schemapi import debug_mode

from collateral.report.charts.figure import Figure, find_instances
from collateral.report.charts.rows import Tables, find_all_editors, make_legible
from collateral.report.figures.registry import FIGURES

Spec = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """One figure of one study.

    Attributes:
        name: of its files and of its element in the page; a slug, no two alike.
        study: title of the study where there are several, else "".
        figure: what it is one of.
        points: what is plotted, a row each.
        spec: the chart. A datum has `row`: the number of its row among the points.
        caption: what is plotted, n, intervals and a finding.
    """

    name: str
    study: str
    figure: Figure
    points: pl.DataFrame
    spec: Spec
    caption: str

    @property
    def folder(self) -> str:
        """Return the name of its files' folder: its page's."""
        return "summary" if self.figure.family == "index" else self.figure.family


def draw_figures(tables: Tables) -> list[Drawing]:
    """Return every figure that the tables have points for; control characters are made visible."""
    tables = make_legible(tables)
    order = find_all_editors(tables)
    found = []
    for figure in FIGURES:
        for name, study, own in find_instances(tables, figure):
            points = figure.points(own)
            with debug_mode(
                False
            ):  # each part of a chart is not checked by itself, but the whole is by `to_dict`
                spec = figure.chart(own, order).to_dict()
            number_rows(spec, points)
            found.append(Drawing(name, study, figure, points, spec, figure.caption(own)))
    return found


def find_panels(spec: Spec) -> list[Spec]:
    """Return the panels of a chart: those that it is put together from, or itself."""
    for kind in ("concat", "hconcat", "vconcat"):
        if kind in spec:
            return list(spec[kind])
    return [spec]


def read_titles(part: Spec) -> list[str]:
    """Return the lines of a panel's title and subtitle."""
    title = part.get("title", "")
    told = [title.get("text", ""), title.get("subtitle", "")] if isinstance(title, dict) else [title]
    return [line for text in told for line in (text if isinstance(text, list) else [text]) if line]


def number_rows(spec: Spec, points: pl.DataFrame) -> None:
    """Give each datum of the chart, in place, the number `row` of the one row of the points that it shows.

    A datum shows a row if they agree, to six digits, in every column that both have. Where several rows do, as
    panels leave out what their title says, that one is meant whose other values stand in the panel's title. A datum
    without such a row, as that of a reference rule, gets no number.
    """
    rows = [{name: _normalize(value) for name, value in row.items()} for row in points.iter_rows(named=True)]
    values = {name: {row[name] for row in rows} for name in points.columns}
    indices: dict[tuple[str, ...], dict[tuple[str, ...], list[int]]] = {}
    for part, datasets in _separate_datasets(spec):
        lines = read_titles(part)
        words = {word for line in lines for word in line.split()}
        for data in datasets:
            said = [{name: _normalize(value) for name, value in datum.items()} for datum in data]
            # A column whose words the chart has replaced says nothing of the row.
            shared = tuple(
                name
                for name in points.columns
                if data and {datum.get(name) for datum in said} <= values[name]
            )
            if len(shared) < 2:
                continue
            if shared not in indices:
                indices[shared] = _index(rows, shared)
            for datum, told in zip(data, said, strict=True):
                found = indices[shared].get(tuple(told[name] for name in shared), [])
                row = _choose_row(rows, found, shared, set(lines), words)
                if row is not None:
                    datum["row"] = row


def _index(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    found = defaultdict(list)
    for number, row in enumerate(rows):
        found[tuple(row[name] for name in columns)].append(number)
    return found


def _separate_datasets(spec: Spec) -> Iterator[tuple[Spec, list[list[dict[str, Any]]]]]:
    """Yield each panel with the data of its layers; data that panels share are made their own first."""
    named = spec.get("datasets", {})
    taken: set[str] = set()
    for place, part in enumerate(find_panels(spec)):
        found: dict[str, list[dict[str, Any]]] = {}
        for number, layer in enumerate(part.get("layer", [part])):
            # Altair moves data that all layers, or all panels, have in common to where these are put together.
            data = layer.get("data") or part.get("data") or spec.get("data", {})
            name = data.get("name")
            if name is None:
                found[f"values {number}"] = data.get("values") or []
            elif name in taken:
                own = f"{name}-{place}"
                layer["data"] = {"name": own}
                if own not in found:
                    named[own] = found[own] = [dict(datum) for datum in named[name]]
            else:
                found[name] = named.get(name, [])
        taken |= set(found)
        yield part, list(found.values())


def _normalize(value: Any) -> str:
    """Return what two values have in common if they are the same number or the same text."""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "None"  # what is not finite is plotted as null
    return f"{value:.6g}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _choose_row(
    rows: Sequence[Mapping[str, str]],
    found: Sequence[int],
    shared: Sequence[str],
    lines: set[str],
    words: set[str],
) -> int | None:
    if len(found) < 2:
        return found[0] if found else None

    def agreement(number: int) -> int:
        told = [value for name, value in rows[number].items() if name not in shared]
        return sum(2 * (word in lines) + (word in words) for word in told)

    first, second = sorted(found, key=agreement, reverse=True)[:2]
    return first if agreement(first) > agreement(second) else None
