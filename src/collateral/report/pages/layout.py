"""The pieces that every page of the report is put together from: head, navigation, controls, sections, figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from collateral.errors import CollateralError
from collateral.report.charts import words
from collateral.report.charts.figure import Figure
from collateral.report.charts.rows import UNEDITED
from collateral.report.charts.style import SEED, SPAN
from collateral.report.pages import assets as pageassets
from collateral.report.pages import tables as pagetables
from collateral.report.pages.tables import escape, text
from collateral.report.render import Drawing, find_panels, read_titles

Studies = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """One section of a page: its anchor, its heading and its ready-made HTML."""

    anchor: str
    title: str
    body: str


@dataclass(frozen=True)
class Page:
    """One page: file stem, name in the navigation, title, ready-made opening, figures and sections."""

    name: str
    label: str
    title: str
    opening: str
    drawn: Sequence[Drawing]
    sections: Sequence[Section]


def render_document(page: Page, pages: Sequence[Page], scope: str, controls: str) -> str:
    """Return the page as one HTML document that needs no network.

    Args:
        page: what it holds.
        pages: all pages of the report, for the navigation.
        scope: what the report is about, as plain text.
        controls: ready-made HTML of its controls.
    """
    body = "".join(
        f'<section id="{escape(one.anchor)}" aria-labelledby="{escape(one.anchor)}-title">'
        f'<h2 id="{escape(one.anchor)}-title">{escape(one.title)}</h2>{one.body}</section>'
        for one in page.sections
    )
    anchors = "".join(
        f'<li><a href="#{escape(one.anchor)}">{escape(one.title)}</a></li>' for one in page.sections
    )
    scripts = f'<script type="module">{pageassets.read_script()}</script>'
    if page.drawn:
        scripts = f'<script type="text/plain" id="library">{pageassets.pack_library()}</script>{scripts}'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{pageassets.build_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(page.title)} – Collateral</title><style>{pageassets.read_style()}</style></head><body>"
        f'<a class="skip" href="#content">Skip to the content</a>{_banner(page, pages)}<div class="frame">'
        f'<nav class="side" aria-label="On this page"><ol>{anchors}</ol></nav><main id="content">'
        f'<div class="opening"><p class="kicker">{text(scope)}</p><h1>{escape(page.title)}</h1>{page.opening}</div>'
        "<noscript><p>The charts need JavaScript; the tables and the SVG, PNG and CSV files do not.</p></noscript>"
        f"{controls}{body}</main></div>"
        "<footer><p>Made by Collateral. Each page is one file and loads nothing.</p></footer>"
        f"{scripts}</body></html>\n"
    )


def _banner(page: Page, pages: Sequence[Page]) -> str:
    links = "".join(
        f'<li><a href="{escape(one.name)}.html"{" aria-current=page" if one.name == page.name else ""}>'
        f"{escape(one.label)}</a></li>"
        for one in pages
    )
    return (
        '<header class="banner"><span class="brand">Collateral</span>'
        f'<nav class="pages" aria-label="Pages of the report"><ul>{links}</ul></nav></header>'
    )


def dump_script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element or a line.

    Raises:
        CollateralError: a number is not finite, which JSON cannot hold.
    """
    try:
        dumped = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028, U+2029 go too
    except ValueError:
        raise CollateralError("a chart holds a number that is not finite; the figure must drop it") from None
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_figure(drawing: Drawing, href: str) -> str:
    """Return a figure: its chart, caption, files (`href` is their folder) and the table of all that it plots."""
    spec = dict(drawing.spec)
    title = spec.pop("title", "")  # in the page this is a line of its own that can wrap
    key = title.get("text", "") if isinstance(title, dict) else title
    key = " ".join(key) if isinstance(key, list) else str(key)
    spec.pop("$schema", None)
    spec["background"] = "transparent"  # light and dark paper
    spec["description"] = drawing.caption
    name, caption = escape(drawing.name), escape(drawing.caption)
    where = drawing.study or drawing.figure.title
    files = "".join(
        f'<a href="{escape(href)}/{drawing.folder}/{name}.{suffix}" download>{said}'
        f'<span class="unseen"> of {escape(where)}, {name}</span></a>'
        for suffix, said in (("svg", "SVG"), ("png", "PNG"), ("csv", "CSV"))
    )
    table, cut = pagetables.render_rows(drawing.points, drawing.name)
    return (
        f'<figure id="figure-{name}" data-chart="{name}"><div class="chart">'
        f'{f"""<p class="key">{escape(key)}</p>""" if key else ""}'
        f'<div class="plot" role="img" aria-label="{caption}"></div></div>'
        f'<script type="application/json">{dump_script_json(spec)}</script>'
        f'<figcaption>{caption}</figcaption><p class="files">Files: {files}</p>'
        f'<details class="data"{" data-cut" if cut else ""}><summary>Data table'
        f'<span class="unseen"> of {escape(where)}, {name}</span></summary>{table}</details></figure>'
    )


def render_study(body: str, study: str, studies: Studies) -> str:
    """Return HTML of one study under its heading, hidden when another study is chosen."""
    if not study:
        return body
    labels = [format_study(pair) for pair in studies]
    chosen = f' data-study="{labels.index(study)}"' if study in labels else ""
    return f"<div{chosen}><h3>{text(study)}</h3>{body}</div>"


def format_study(pair: tuple[str, str]) -> str:
    """Return what a model and data set are called together."""
    return " · ".join(pair)


def build_figure_section(which: Figure, drawn: Sequence[Drawing], studies: Studies, href: str) -> Section:
    """Return the section of one figure: what it shows of every study, or what would produce its data."""
    own = [one for one in drawn if one.figure.name == which.name]
    body = "".join(render_study(render_figure(one, href), one.study, studies) for one in own)
    return Section(
        which.name, which.title, body or pagetables.render_missing(words.join(which.tables), which.maker)
    )


def render_controls(drawn: Sequence[Drawing], studies: Studies, abilities: Sequence[str]) -> str:
    """Return the controls of a page: a choice of what occurs more than once in its figures and tables.

    Args:
        drawn: the page's figures.
        studies: all studies of the report.
        abilities: names of abilities that the page's figures or tables tell apart.
    """
    editors = list(dict.fromkeys(name for one in drawn for name in _values(one.points, "editor")))
    seeds = [seed for one in drawn if _has(one, SEED) for seed in _values(one.points, SEED) if seed != "all"]
    edits = [int(count) for one in drawn if _has(one, SPAN) for count in _values(one.points, "edits")]
    seeds, checkpoints = sorted(set(seeds), key=lambda seed: (len(seed), seed)), sorted(set(edits) - {0})
    shown = {one.study for one in drawn}
    pairs = [
        (str(index), format_study(pair)) for index, pair in enumerate(studies) if format_study(pair) in shown
    ]
    ends = [(str(count), str(count)) for count in checkpoints]
    choices = [
        _select("study", "Model · data set", [("", "all"), *pairs], len(pairs)),
        _select(
            "editor",
            "Editor",
            [("", "all"), *((name, name) for name in editors), ("+", "several")],
            len(editors),
        ),
        _select("ability", "Ability", [("", "all"), *((name, name) for name in abilities)], len(abilities)),
        _select("seed", "Seed", [("all", "mean of all"), *((seed, seed) for seed in seeds)], len(seeds)),
        _select("from", "From edit", [("", "first"), *ends], len(ends)),
        _select("to", "To edit", [("", "last"), *ends], len(ends)),
    ]
    if not any(choices):
        return ""
    return (
        f'<form class="controls" aria-label="What the charts show" hidden>{"".join(choices)}'
        '<button type="reset" disabled>Show all</button><output aria-live="polite"></output></form>'
    )


def _values(points: pl.DataFrame, column: str) -> list[str]:
    if column not in points.columns:
        return []
    values = points[column].drop_nulls().unique(maintain_order=True).to_list()
    return [str(value) for value in values if value != UNEDITED]


def _has(drawing: Drawing, parameter: str) -> bool:
    return any(param.get("name") == parameter for param in drawing.spec.get("params", []))


def _select(name: str, said: str, options: Sequence[tuple[str, str]], count: int) -> str:
    if count < 2:
        return ""
    listed = "".join(
        f'<option value="{escape(value)}"{" hidden" if value == "+" else ""}>{escape(shown)}</option>'
        for value, shown in options
    )
    return f'<label>{said} <select name="{name}" autocomplete="off">{listed}</select></label>'


def find_panel_titles(drawn: Sequence[Drawing]) -> set[str]:
    """Return the first line of the title of every panel of the figures."""
    return {title for one in drawn for part in find_panels(one.spec) for title in read_titles(part)[:1]}


def render_provenance(run: Mapping[str, Any], libraries: pl.DataFrame | None = None) -> str:
    """Return settings, versions, hashes and machine, folded, whatever of them there is.

    Args:
        run: the run info.
        libraries: the table of the libraries that made the results; several versions of one are said openly.
    """
    found = []
    if run.get("settings"):
        dumped = json.dumps(run["settings"], indent=2, ensure_ascii=False, default=str)
        found.append(
            f'<details><summary>Settings</summary><pre tabindex="0" dir="ltr">{escape(dumped)}</pre></details>'
        )
    for key, title, name, value in (
        ("versions", "Versions", "Package", "Version"),
        ("hashes", "Hashes of the files", "File", "sha256"),
        ("machine", "Machine", "What", "Value"),
    ):
        if run.get(key):
            folded = pagetables.render_record(run[key], name, value, title)
            found.append(f"<details><summary>{title}</summary>{folded}</details>")
    if not found:
        return pagetables.render_missing("run info", "the report rule of the workflow")
    return (
        "<p>Every number of the report follows from these; <code>run.json</code>, beside this page, holds the same "
        f"for programs.</p>{_mixed(libraries)}{''.join(found)}"
    )


def _mixed(libraries: pl.DataFrame | None) -> str:
    """Return what to know of results that were made with several versions of a library."""
    if libraries is None or libraries.is_empty():
        return ""
    counted = libraries.group_by("library", "version").agg(pl.col("files").sum()).sort("library", "version")
    said = []
    for (library,), own in counted.group_by("library", maintain_order=True):
        if len(own) > 1:
            each = ", ".join(f"{escape(version)} ({files} files)" for _, version, files in own.rows())
            said.append(f"{escape(library)} {each}")
    if not said:
        return ""
    return (
        f'<p class="note"><strong>Made with several versions of a library:</strong> {"; ".join(said)}. What was made '
        "before an upgrade is kept; <code>runtime.rerun_on_upgrade: true</code> makes it anew.</p>"
    )
