"""Tables and drawings → the pages of the report: a summary, and one page for each family of figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from collateral.report.charts import rows, words
from collateral.report.charts.rows import Tables
from collateral.report.figures.registry import FIGURES
from collateral.report.pages import chains as pagechains
from collateral.report.pages import disk as pagedisk
from collateral.report.pages import findings as pagefindings
from collateral.report.pages import layout as pageparts
from collateral.report.pages import missing as pagemissing
from collateral.report.pages import paper_tables as pagepapers
from collateral.report.pages import tables as pagetables
from collateral.report.pages import verdicts as pageverdicts
from collateral.report.pages.layout import Page, Section, Studies, format_study
from collateral.report.pages.tables import escape, text
from collateral.report.render import Drawing, draw_figures

INDEX = "index"
FAMILIES = {
    "abilities": (
        "Abilities",
        "What happened to abilities that have nothing to do with the edits",
        "Every ability is scored before editing and again at each checkpoint, on the same items.",
    ),
    "edits": (
        "Edits",
        "Did the edits take, and did they stay?",
        "Each edited fact is asked for again: as edited, in other words, and beside facts that should not change.",
    ),
    "weights": (
        "Weights",
        "How far the weights moved, and where",
        "The edited weights are compared with the unedited ones, element by element and as matrices.",
    ),
    "cost": ("Cost", "What the study cost", "Time, memory and bytes of its jobs, as they were recorded."),
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
    "At chance before editing": "the unedited model is not shown to do better than guessing, so that the task cannot "
    "show harm, whatever its line does.",
    "δ and Manhattan distance": "δ = |ΔW| / |W| of one weight; the Manhattan distance is Σ |ΔW|.",
    "The charts": "click an editor in a legend to see it alone in all charts of a page, shift-click to add one, "
    "click beside it or press Escape to undo. Drag over the edits of a panel to dim the other checkpoints in all of "
    "them. Hover over a point for its numbers; click it to find its row in the table below. The controls above do "
    "the same from the keyboard. Points of one checkpoint stand slightly apart, so that all bars are seen.",
}


def _of(name: str, make: Callable[[pl.DataFrame], str]) -> Callable[[Tables], str]:
    """Return what `make` says of one table."""
    return lambda own: make(own[name])


# The tables of a page that no figure draws: anchor, title, the table that they are made of, their HTML.
TABLES: dict[str, tuple[tuple[str, str, str, Callable[[Tables], str]], ...]] = {
    "abilities": (
        ("scores", "Abilities before and after, in numbers", "abilities", pagepapers.render_abilities),
    ),
    "edits": (
        ("success-table", "Efficacy, paraphrase, specificity", "efficacy", pagepapers.render_success),
        ("facts", "Facts edited", "edits", _of("edits", pagetables.render_edits)),
        ("known", "What was known", "known", _of("known", pagetables.render_known)),
    ),
    "weights": (
        ("distances", "Distance and δ", "weights", _of("weights", pagetables.render_distances)),
        ("singles", "δ of single edits", "single-weights", pagepapers.render_singles),
    ),
}


def render_pages(
    tables: Tables,
    run: Mapping[str, Any],
    figures_href: str = "../figures",
    drawn: Sequence[Drawing] | None = None,
) -> dict[str, str]:
    """Return the pages of the report by file name; each is one HTML document that needs no network.

    Args:
        tables: the tidy tables by name; a missing one counts as empty.
        run: settings, versions, hashes, machine.
        figures_href: folder of the figures' files, relative to the pages.
        drawn: the figures of the tables, where they are drawn already.
    """
    drawn = draw_figures(tables) if drawn is None else drawn
    tables = rows.make_legible(tables)
    studies = rows.find_studies(tables)
    pages = [
        _index(tables, run, drawn, studies, figures_href),
        *(_family(name, tables, drawn, studies, figures_href, run) for name in FAMILIES),
    ]
    scope, known = _scope(run, studies), pagefindings.list_abilities(tables)
    return {
        f"{page.name}.html": pageparts.render_document(page, pages, scope, _controls(page, studies, known))
        for page in pages
    }


def _controls(page: Page, studies: Studies, known: Sequence[str]) -> str:
    told_apart = pageparts.find_panel_titles(page.drawn)
    matrix = page.name == INDEX and any("data-ability" in section.body for section in page.sections)
    return pageparts.render_controls(
        page.drawn, studies, [name for name in known if matrix or name in told_apart]
    )


def _scope(run: Mapping[str, Any], studies: Studies) -> str:
    name = str(run.get("settings", {}).get("study", {}).get("title", ""))
    scope = "; ".join(f"{model}, facts from {dataset}" for model, dataset in studies) or "no data yet"
    return f"{name}: {scope}" if name else scope


def _index(
    tables: Tables, run: Mapping[str, Any], drawn: Sequence[Drawing], studies: Studies, href: str
) -> Page:
    models = list(dict.fromkeys(model for model, _ in studies))
    subject = words.join(models) if len(models) in (1, 2) else "language models"
    own = [one for one in drawn if one.figure.family == INDEX]
    sections = [
        Section("verdict", "Which editor harms which ability?", _verdict(tables, run, studies)),
        Section("findings", "Findings", _findings(tables, studies)),
        *_figure_sections(INDEX, drawn, studies, href),
        Section("missing", "What is missing", _missing(tables, run, drawn)),
        Section("reading", "How to read this report", _reading()),
        Section(
            "provenance", "Settings and provenance", pageparts.render_provenance(run, tables.get("libraries"))
        ),
    ]
    opening = (
        '<p class="lead">A language model can be made to state a new fact by changing a few of its weights. Edits '
        "are made here one after another, and after each checkpoint it is asked: did the edits take, which abilities "
        "that have nothing to do with them were harmed, how much of that a regulariser rescues, and which change of "
        "the weights goes with it?</p>"
    )
    title = f"What editing facts did to everything else in {subject}"
    return Page(INDEX, "Summary", title, opening, own, [one for one in sections if one.body])


def _family(
    name: str, tables: Tables, drawn: Sequence[Drawing], studies: Studies, href: str, run: Mapping[str, Any]
) -> Page:
    """Return the page of a family of figures; a figure without data says what would produce it."""
    sections = _figure_sections(name, drawn, studies, href)
    for anchor, title, table, make in TABLES.get(name, ()):
        sections.append(Section(anchor, title, _table(tables, table, studies, make)))
    stored = pagedisk.render_disk(tables.get("costs", pl.DataFrame()), run.get("checkpoints", {}))
    if name == "cost" and stored:
        sections.append(Section("disk", "Deltas instead of full checkpoints", stored))
    if not sections:
        sections = [Section("figures", "Figures", "<p>This version of the report draws none.</p>")]
    short, title, lead = FAMILIES[name]
    own = [one for one in drawn if one.figure.family == name]
    return Page(name, short, title, f'<p class="lead">{escape(lead)}</p>', own, sections)


def _table(tables: Tables, name: str, studies: Studies, make: Callable[[Tables], str]) -> str:
    if tables.get(name, pl.DataFrame()).is_empty():
        return make({name: pl.DataFrame()})  # says once, not for every study, what is missing
    return _by_study(tables, (name,), studies, make)


def _figure_sections(family: str, drawn: Sequence[Drawing], studies: Studies, href: str) -> list[Section]:
    own = [figure for figure in FIGURES if figure.family == family]
    return [pageparts.build_figure_section(figure, drawn, studies, href) for figure in own]


def _by_study(
    tables: Tables, names: Sequence[str], studies: Studies, make: Callable[[dict[str, pl.DataFrame]], str]
) -> str:
    """Return what `make` says of every study, each under its model and data set where there are several."""
    if not studies:
        return make({name: pl.DataFrame() for name in names})
    bodies = []
    for pair in studies:
        own = {name: rows.select_study(tables.get(name, pl.DataFrame()), *pair) for name in names}
        body = make(own)
        if body:
            bodies.append(
                pageparts.render_study(body, format_study(pair) if len(studies) > 1 else "", studies)
            )
    return "".join(bodies)


def _verdict(tables: Tables, run: Mapping[str, Any], studies: Studies) -> str:
    order, settings = rows.find_all_editors(tables), run.get("settings", {})
    methods = {name: str(own.get("method", "")) for name, own in settings.get("editors", {}).items()}
    if "editors" in tables and not tables["editors"].is_empty():
        methods |= dict(tables["editors"].select("editor", "method").iter_rows())
    if tables.get("comparisons", pl.DataFrame()).is_empty():
        return _by_study(
            tables,
            ("abilities", "efficacy", "ability-items"),
            studies,
            lambda own: (
                pagetables.render_summary(own["abilities"], own["efficacy"])
                + pagechains.render_control(own, methods)
            ),
        )

    def of_one(own: dict[str, pl.DataFrame]) -> str:
        return (
            pageverdicts.render_matrix(own, order)
            + pagechains.render_control(own, methods)
            + pagechains.render_collapses(own)
            + pagechains.render_horizons(own, order)
        )

    names = ("comparisons", "collapses", "efficacy", "ability-items", "horizons")
    legend = pageverdicts.render_legend(settings.get("inference", {}))
    return legend + _by_study(tables, names, studies, of_one)


def _findings(tables: Tables, studies: Studies) -> str:
    names = ("comparisons", "collapses", "tradeoffs", "editors", "predictors")

    def listed(own: dict[str, pl.DataFrame]) -> str:
        said = pagefindings.state_findings(own)
        return f'<ul class="findings">{"".join(f"<li>{text(one)}</li>" for one in said)}</ul>' if said else ""

    found = _by_study(tables, names, studies, listed)
    return found or '<p class="missing">The paired comparisons that findings rest on are not there yet.</p>'


def _missing(tables: Tables, run: Mapping[str, Any], drawn: Sequence[Drawing]) -> str:
    """Return the jobs of an unfinished study, and the figures that its data do not allow: what would produce each."""
    jobs = pagemissing.render_missing_jobs(run["missing"]) if run.get("missing") else ""
    there = {one.figure.name for one in drawn}
    gaps = [
        f'<li><a href="{figure.family}.html#{escape(figure.name)}">{escape(figure.title)}</a>: '
        f"needs {escape(figure.maker)}.</li>"
        for figure in FIGURES
        if figure.name not in there
    ]
    if tables.get("comparisons", pl.DataFrame()).is_empty():
        gaps.insert(0, "<li><b>Verdicts</b>: need the paired comparison of edited and unedited models.</li>")
    if not gaps:
        return jobs or "<p>Nothing: the study has data for every figure of the report.</p>"
    return f"{jobs}<ul>{''.join(gaps)}</ul>"


def _reading() -> str:
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(said)}</dd>" for term, said in READING.items())
    return f'<dl class="reading">{items}</dl>'
