"""Tables and charts → one self-contained HTML page: escaped, offline, one copy of the chart library."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from collateral import pagemissing, pagetables
from collateral.errors import CollateralError
from collateral.figures import rows, words
from collateral.figures.abilities import abilities_finding
from collateral.figures.edits import efficacy_finding
from collateral.figures.registry import FIGURES, Figure, instances
from collateral.figures.rows import Tables
from collateral.pagestyle import SCRIPT, STYLE
from collateral.pagetables import escaped, text

SECTIONS = {
    "summary": "Summary",
    "reading": "How to read this page",
    "abilities": "Abilities",
    "efficacy": "Efficacy",
    "weights": "Weights",
    "norms": "L1 norms",
    "heatmaps": "Heat maps",
    "edits": "Facts edited",
    "known": "What was known",
    "provenance": "Provenance",
}
READING = {
    "Editor": "a named recipe: an editing method, its hyperparameters and its regulariser.",
    "Edits": "edits are made one after another in the same weights; a checkpoint is the model after so many.",
    "Reliability": "the edited prompt now gets the new answer.",
    "Generalization": "paraphrases of it do as well.",
    "Locality": "prompts about other subjects keep the unedited model's answer.",
    "Teacher-forced, probability, generation": "share of the answer's tokens that are the most likely ones when "
    "the right ones precede them; share of probes where the answer is more probable than its rival; share of "
    "freely generated texts that state it. The last is the strictest.",
    "Error bars": "±1 standard error: over the items of a task, over probes clustered by fact, over seeds.",
    "At chance before editing": "the unedited score - 2 standard errors does not exceed guessing, so that the "
    "task cannot show harm, whatever its line does.",
    "δ and Manhattan distance": "δ = |ΔW| / |W| of one weight; the Manhattan distance is Σ |ΔW|.",
    "The charts": "click an editor in a legend to isolate it, shift-click to add one, click beside it to undo; "
    "hover over a point for its numbers. Points of one checkpoint stand slightly apart, so that all bars are seen. "
    "Each chart has a data table, a CSV and an SVG below it.",
}


def figure_charts(tables: Tables) -> dict[str, alt.ConcatChart]:
    """Return the chart of each figure that has data; the file name of each is its key."""
    tables = rows.legible(tables)
    return {
        name: figure.chart(own, rows.all_editors(tables)).properties(description=figure.caption(own))
        for figure in FIGURES
        for name, _, own in instances(tables, figure)
    }


def figure_csvs(tables: Tables) -> dict[str, pl.DataFrame]:
    """Return the plotted points of each figure that has data; the file name of each is its key."""
    tables = rows.legible(tables)
    return {name: figure.points(own) for figure in FIGURES for name, _, own in instances(tables, figure)}


def script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element or a line.

    Raises:
        CollateralError: a number is not finite, which JSON cannot hold.
    """
    try:
        dumped = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028, U+2029 go too
    except ValueError:
        raise CollateralError("a chart holds a number that is not finite; the figure must drop it") from None
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Return the page's one script: Vega, Vega-Lite, Vega-Embed and what draws the figures."""
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    script = str(vl_convert.javascript_bundle(SCRIPT, version))
    if re.search(r"</script|<!--", script, flags=re.IGNORECASE):
        raise CollateralError(
            "the chart library holds text that ends a script element; use another vl-convert"
        )
    return script


def _figure(name: str, figure: Figure, own: Tables, order: Sequence[str], href: str) -> str:
    caption = figure.caption(own)
    spec = figure.chart(own, order).to_dict()
    key = spec.pop("title")["text"]  # in the page this is a line of its own that can wrap
    spec.pop("$schema", None)
    spec["background"] = "transparent"  # light and dark paper
    spec["description"] = caption
    files = f"{escaped(href)}/{escaped(name)}"
    return (
        f'<figure id="figure-{escaped(name)}" data-chart="{escaped(name)}">'
        f'<div class="chart"><p class="key">{escaped(key)}</p>'
        f'<div class="plot" role="img" aria-label="{escaped(caption)}"></div></div>'
        f'<script type="application/json">{script_json(spec)}</script>'
        f"<figcaption>{escaped(caption)}</figcaption>"
        f'<p class="files"><a href="{files}.svg" download>Download the figure (SVG)</a>'
        f'<a href="{files}.csv" download>Download its data (CSV)</a></p>'
        f"<details><summary>Data table</summary>{pagetables.data_table(figure.points(own))}</details></figure>"
    )


def _figures(tables: Tables, name: str, href: str) -> str:
    """Return the heading and the figure of every study, or what is missing."""
    figure = next(figure for figure in FIGURES if figure.name == name)
    parts = [f"<h3>{escaped(figure.title)}</h3>"]
    found, order = instances(tables, figure), rows.all_editors(tables)
    if not found:
        parts.append(pagetables.missing(figure.tables[0], figure.maker))
    for own_name, title, own in found:
        parts.append(
            (f"<h4>{text(title)}</h4>" if title else "") + _figure(own_name, figure, own, order, href)
        )
    return "".join(parts)


def _by_study(tables: Tables, names: tuple[str, ...], make: Callable[..., str]) -> str:
    """Return a table of every study, each under its model and data set where there are several."""
    pairs = rows.studies(tables)
    if not pairs:
        return make(*(pl.DataFrame() for _ in names))
    parts = []
    for model, dataset in pairs:
        own = [rows.of_study(tables.get(name, pl.DataFrame()), model, dataset) for name in names]
        parts.append((f"<h4>{text(f'{model} · {dataset}')}</h4>" if len(pairs) > 1 else "") + make(*own))
    return "".join(parts)


def _findings(tables: Tables) -> str:
    found = []
    makers = {"efficacy": efficacy_finding, "abilities": abilities_finding}
    for name, finding in makers.items():
        figure = next(figure for figure in FIGURES if figure.name == name)
        for _, title, own in instances(tables, figure):
            found.append((f"{text(title)}: " if title else "") + escaped(finding(own)))
    return f'<ul class="findings">{"".join(f"<li>{line}</li>" for line in found)}</ul>' if found else ""


def _reading() -> str:
    items = "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(said)}</dd>" for term, said in READING.items())
    return f'<dl class="reading">{items}</dl>'


def _provenance(run: Mapping[str, Any]) -> str:
    """Return settings, versions, hashes and machine, folded, whatever of them the run info holds."""
    parts = []
    if run.get("settings"):
        dumped = json.dumps(run["settings"], indent=2, ensure_ascii=False, default=str)
        parts.append(
            f'<details><summary>Settings</summary><pre tabindex="0" dir="ltr">{escaped(dumped)}</pre></details>'
        )
    for key, title, name, value in (
        ("versions", "Versions", "Package", "Version"),
        ("hashes", "Hashes of the files", "File", "sha256"),
        ("machine", "Machine", "What", "Value"),
    ):
        if run.get(key):
            folded = pagetables.record(run[key], name, value)
            parts.append(f"<details><summary>{title}</summary>{folded}</details>")
    if not parts:
        return pagetables.missing("run info", "the report rule of the workflow")
    return "<p>Every number above follows from these.</p>" + "".join(parts)


def _title(tables: Tables) -> tuple[str, str]:
    pairs = rows.studies(tables)
    models = list(dict.fromkeys(model for model, _ in pairs))
    scope = "; ".join(f"{model}, facts from {dataset}" for model, dataset in pairs) or "no data yet"
    subject = words.joined(models) if len(models) in (1, 2) else "language models"
    return f"What editing facts did to everything else in {subject}", scope


def render(tables: Tables, run: Mapping[str, Any], figures_href: str = "figures") -> str:
    """Return the whole report as one HTML document that needs no network.

    Args:
        tables: abilities, efficacy, weights, heatmaps, edits, known; a missing one counts as empty.
        run: settings, versions, hashes, machine.
        figures_href: folder of the CSV and SVG files, relative to the page.
    """
    tables = rows.legible(tables)
    title, scope = _title(tables)
    name = str(run.get("settings", {}).get("study", {}).get("title", ""))
    scope = f"{name}: {scope}" if name else scope
    sections = {
        "summary": _by_study(tables, ("abilities", "efficacy"), pagetables.summary),
        "reading": _reading(),
        "abilities": _figures(tables, "abilities", figures_href),
        "efficacy": _figures(tables, "efficacy", figures_href) + _figures(tables, "retention", figures_href),
        "weights": _by_study(tables, ("weights",), pagetables.distances)
        + _figures(tables, "shares", figures_href),
        "norms": _figures(tables, "norms", figures_href),
        "heatmaps": _figures(tables, "heatmaps", figures_href),
        "edits": _by_study(tables, ("edits",), pagetables.edits),
        "known": pagetables.known(tables.get("known", pl.DataFrame())),
        "provenance": _provenance(run),
    }
    titles = SECTIONS
    if run.get("missing"):
        titles = {"missing": "What is missing", **SECTIONS}
        sections["missing"] = pagemissing.missing(run["missing"])
    links = "".join(f'<li><a href="#{name}">{label}</a></li>' for name, label in titles.items())
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{label}</h2>'
        f"{sections[name]}</section>"
        for name, label in titles.items()
    )
    script = _library()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#summary">Skip to the summary</a><div class="frame">'
        f'<nav class="side" aria-label="Sections"><ol>{links}</ol></nav><main>'
        f'<header><p class="kicker">{text(scope)}</p><h1>{escaped(title)}</h1>'
        '<p class="lead">A language model can be made to state a new fact by changing a few of its weights. '
        "Edits are made here one after another, and after each checkpoint three things are asked: did the edits "
        "take, what happened to abilities that have nothing to do with them, and how far did the weights move?"
        f"</p>{_findings(tables)}</header>"
        "<noscript><p>The charts need JavaScript; the tables, the CSV and the SVG files do not.</p></noscript>"
        f"{body}<footer><p>Made by Collateral. This page is one file and loads nothing.</p></footer>"
        f'</main></div><script type="module">{script}</script></body></html>\n'
    )
