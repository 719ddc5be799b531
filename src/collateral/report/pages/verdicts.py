"""The verdicts of the report as HTML: editor × ability, and what each verdict means. Every text is escaped."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from collateral.report.charts import words
from collateral.report.charts.means import select_all_seeds
from collateral.report.charts.rows import UNEDITED
from collateral.report.figures.abilities import ABILITY_KEYS
from collateral.report.figures.edits import efficacy_points
from collateral.report.pages.tables import escape, header, render_missing, text

Tables = Mapping[str, pl.DataFrame]
Row = Mapping[str, Any]
# Symbol and word say what the colour says.
SYMBOLS = {
    "harm": "▼",
    "no harm": "✓",
    "inconclusive": "?",
    "at chance": "–",
    "collapsed": "✕",
    "not evaluated": "○",
}


def select_final(comparisons: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each editor's own last checkpoint."""
    edited = comparisons.filter(pl.col("editor") != UNEDITED)
    return edited.filter(pl.col("edits") == pl.col("edits").max().over("model", "dataset", "editor"))


def format_effect(row: Row) -> str:
    """Return estimate and interval: percentage points of a share, the ratio of perplexities, else the difference."""
    low, high = row["low"], row["high"]
    if row["estimate"] is None:
        return ""
    shown = [_size(row, value, sign=index == 0) for index, value in enumerate((row["estimate"], low, high))]
    return shown[0] if low is None or high is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _size(row: Row, value: float, sign: bool = True) -> str:
    if row["scale"] == "log_ratio":
        ratio = math.exp(min(value, 700.0))
        return f"{'×' if sign else ''}{words.number(ratio, 3)}"
    if _is_share(row):
        return words.points(value) if sign else words.points(value).replace("+", "")
    shown = words.number(value, 3)
    return f"+{shown}" if sign and value > 0 else shown


def _is_share(row: Row) -> bool:
    values = [row[key] for key in ("unedited", "edited") if row[key] is not None]
    return row["scale"] == "difference" and all(0 <= value <= 1 for value in values)


def _detectable(row: Row) -> str:
    """Return the minimum detectable effect in the unit of the estimate."""
    value = row["mde"]
    if value is None or not math.isfinite(value):
        return ""
    if row["scale"] == "log_ratio":
        return f"×{words.number(math.exp(min(value, 700.0)), 3)}"
    return f"{words.number(100 * value, 2)} points" if _is_share(row) else words.number(value, 2)


def _details(row: Row) -> str:
    """Return everything else about a cell, for its title."""
    margin = row["margin"]
    said = [
        f"{row['editor']}, {row['ability']}, after {row['edits']} edits: {row['verdict']}",
        f"unedited {words.number(row['unedited'])}, edited {words.number(row['edited'])}",
        f"n = {row['n']} items" + (f", {row['seeds']} seeds" if (row["seeds"] or 1) > 1 else ""),
    ]
    if row["worse"] is not None and row["better"] is not None:
        said.append(f"{row['worse']} items got worse, {row['better']} better")
    if row["p_holm"] is not None:
        said.append(
            f"p = {words.number(row['p'], 2)}, Holm p = {words.number(row['p_holm'], 2)} ({row['test']})"
        )
    if margin is not None and row["p_no_harm_holm"] is not None:
        size = words.number(100 * margin, 3) + " points" if _is_share(row) else words.number(margin, 3)
        said.append(f"no harm beyond the margin of {size}: Holm p = {words.number(row['p_no_harm_holm'], 2)}")
    if row["interval"] is not None and row["low"] is not None:
        said.append(f"interval: {row['interval']}")
    return "; ".join(said)


def _verdict(row: Row | None, ability: str, collapsed: int | None) -> str:
    about = f' data-ability="{escape(ability)}"'
    if row is None:
        word, row_class = "not evaluated", "not-evaluated"
        when = f": collapsed at {collapsed}" if collapsed is not None else ""
        return f'<td class="verdict {row_class}"{about}><b>{SYMBOLS[word]} {word}</b>{when}</td>'
    word = row["verdict"]
    when = f": collapsed at {collapsed}" if word == "not evaluated" and collapsed is not None else ""
    lines = [f"<b>{SYMBOLS[word]} {escape(word)}</b>{when}"]
    if word not in ("not evaluated", "collapsed"):
        lines.append(f'<span class="effect">{escape(format_effect(row))}</span>')
        if _detectable(row) and word not in ("harm", "at chance"):
            lines.append(f'<span class="note">detectable: {_detectable(row)}</span>')
    shown = "".join(f"<div>{line}</div>" for line in lines)
    return f'<td class="verdict {word.replace(" ", "-")}"{about} title="{escape(_details(row))}">{shown}</td>'


def _first_collapses(tables: Tables) -> dict[str, int]:
    """Return the first collapsed checkpoint of each editor, over seeds."""
    collapses = tables.get("collapses", pl.DataFrame())
    if collapses.is_empty():
        return {}
    first = collapses.filter(pl.col("collapsed")).group_by("editor").agg(pl.col("edits").min())
    return dict(first.iter_rows())


def render_matrix(tables: Tables, order: Sequence[str]) -> str:
    """Return editor × ability at each editor's last checkpoint: verdict, estimate, interval, detectable effect.

    Args:
        tables: the study's own: comparisons; collapses and efficacy where they are.
        order: the study's editors.
    """
    rows = tables.get("comparisons", pl.DataFrame())
    if rows.is_empty():
        return render_missing("comparisons", "the paired comparison of edited and unedited models")
    rows, collapsed = select_final(rows), _first_collapses(tables)
    own = {(row["editor"], *(row[key] for key in ABILITY_KEYS)): row for row in rows.to_dicts()}
    columns = rows.unique(ABILITY_KEYS, keep="first", maintain_order=True).to_dicts()
    stated = _stated(tables.get("efficacy", pl.DataFrame()))
    present = set(rows["editor"]) | set(collapsed)
    edits = dict(rows.select("editor", "edits").unique().iter_rows())
    head = [header("Editor"), header('Edits stated<span class="note">in free generation</span>', True)]
    head += [_ability(column) for column in columns]
    body = []
    for editor in [name for name in order if name in present]:
        count = edits.get(editor)
        after = (
            f'<span class="note">{count} edit{"" if count == 1 else "s"}</span>' if count is not None else ""
        )
        cells = (
            _verdict(
                own.get((editor, *(column[key] for key in ABILITY_KEYS))),
                column["ability"],
                collapsed.get(editor),
            )
            for column in columns
        )
        body.append(
            f'<tr data-editor="{escape(editor)}"><th scope="row">{text(editor)}{after}</th>'
            f'<td class="number">{stated.get(editor, "–")}</td>{"".join(cells)}</tr>'
        )
    return frame_matrix(head, body, "Verdict of each editor on each ability")


def frame_matrix(head: Sequence[str], body: Sequence[str], label: str) -> str:
    """Return a table of editors and abilities, in a box that scrolls by itself."""
    return (
        f'<div class="scroll matrix" tabindex="0" role="group" aria-label="{label}"><table>'
        f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _ability(row: Row) -> str:
    metric = row["metric"].replace("_", " ")
    before = words.percent(row["unedited"]) if _is_share(row) else words.number(row["unedited"])
    note = f"{row['task']}, {metric}; n = {row['n']}; unedited {before}"
    return (
        f'<th scope="col" data-ability="{escape(row["ability"])}">{text(row["ability"])}'
        f'<span class="note">{escape(note)}</span></th>'
    )


def _stated(efficacy: pl.DataFrame) -> dict[str, str]:
    """Return, per editor at its last checkpoint, the share of its edits that free generation states."""
    if efficacy.is_empty():
        return {}
    points = select_all_seeds(efficacy_points({"efficacy": efficacy}))
    asked = points.filter(
        (pl.col("kind") == "reliability") & (pl.col("how") == "generation") & (pl.col("editor") != UNEDITED)
    )
    found = {}
    for row in asked.filter(pl.col("edits") == pl.col("edits").max().over("editor")).to_dicts():
        error = f' <span class="error">± {100 * row["stderr"]:.0f}</span>' if row["stderr"] else ""
        found[row["editor"]] = f"{100 * row['value']:.0f}%{error}"
    return found


def render_legend(inference: Mapping[str, Any]) -> str:
    """Return what the verdicts mean, with the study's own levels where its settings are known."""
    level = f"{100 * (1 - inference['alpha']):g}%" if "alpha" in inference else "95%"
    alpha = f"{inference['alpha']:g}" if "alpha" in inference else "the study's level"
    power = f"{100 * inference['power']:g}%" if "power" in inference else "the study's power"
    margin = inference.get("margin", {})
    margins = (
        f" ({100 * margin['share']:g} points of a score, {100 * margin['perplexity']:g}% of a perplexity)"
        if {"share", "perplexity"} <= set(margin)
        else ""
    )
    meanings = {
        "harm": f"worse than the unedited model on the same items: paired test, p ≤ {alpha} after Holm's correction "
        "over all cells of the study",
        "no harm": f"a loss beyond the margin{margins} is excluded at the same level: a claim, not a missing star",
        "inconclusive": "neither: too few items for an effect of this size; the effect that would be found with "
        f"{power} power stands below it",
        "at chance": "the unedited model only guesses here, so that nothing can be lost",
        "collapsed": "values are not finite",
        "not evaluated": "there is no measurement at this checkpoint; if the model had collapsed, it says when",
    }
    items = "".join(
        f'<div><dt class="verdict {word.replace(" ", "-")}"><b>{SYMBOLS[word]} {word}</b></dt>'
        f"<dd>{escape(said)}.</dd></div>"
        for word, said in meanings.items()
    )
    return (
        '<p class="caption">Each editor at its last checkpoint. Change of the '
        f"score from the unedited model in percentage points, or ratio of perplexities (×1 is no change), with its "
        f"{level} interval. <i>Edits stated</i>: share of the edits so far that the model states in free generation, "
        "± standard error clustered by fact. Hover over a cell for n, p and the margin.</p>"
        f'<details><summary>What the verdicts mean</summary><dl class="legend">{items}</dl></details>'
    )
