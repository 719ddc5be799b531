"""The papers' tables as HTML: edit success and abilities before and after (D4S), single edits (RECT)."""

from typing import Any

import polars as pl

from collateral.report.charts import words
from collateral.report.charts.paper_tables import (
    tabulate_before_and_after,
    tabulate_edit_success,
    tabulate_single_edits,
)
from collateral.report.charts.rows import UNEDITED, Tables
from collateral.report.pages.tables import cell, header, render_missing, table, text

CHANGE = "change of "


def _rows(frame: pl.DataFrame, shares: set[str]) -> list[list[str]]:
    """Return the body of a table: the first column as row headers, shares in per cent, their changes in points."""
    first, *rest = frame.columns

    def told(name: str, value: Any) -> str:
        if name in shares:
            shown = words.points(value) if name.startswith(CHANGE) else words.percent(value)
            return f'<td class="number">{shown}</td>'
        return cell(value, "number" if frame[name].dtype.is_numeric() else "text")

    return [
        [f'<th scope="row">{text(row[first])}</th>', *(told(name, row[name]) for name in rest)]
        for row in frame.iter_rows(named=True)
    ]


def _head(frame: pl.DataFrame) -> list[str]:
    return [header(text(name.replace("_", " ")), frame[name].dtype.is_numeric()) for name in frame.columns]


def render_success(tables: Tables) -> str:
    """Return efficacy, paraphrase and specificity at every checkpoint: right after each edit, and then."""
    found = tabulate_edit_success(tables)
    if found.is_empty():
        return render_missing("efficacy", "the probes of edited checkpoints")
    shares = {"efficacy", "paraphrase", "specificity", "average"}
    caption = (
        "Edit success by checkpoint, teacher-forced: the form of the D4S paper's tables. <b>original</b> asks for "
        "each edit right after it was made, <b>current</b> for all of them at the checkpoint; the average is of the "
        "three."
    )
    return table(_head(found), _rows(found, shares), caption, "tall")


def render_abilities(tables: Tables) -> str:
    """Return every ability before and after editing, an editor a row, at its last checkpoint."""
    found = tabulate_before_and_after(tables)
    if found.is_empty():
        return render_missing("abilities", "the evaluation of edited checkpoints on a suite of tasks")
    edited = found.filter(pl.col("editor") != UNEDITED)
    # A share and its change may lie outside [0, 1] only where the metric is no share.
    shares = {
        name
        for name in found.columns[2:]
        if found[name].is_between(-1, 1).fill_null(True).all()
        and found[name.removeprefix(CHANGE)].is_between(0, 1).fill_null(True).all()
    }
    caption = (
        "Abilities before editing (first row) and after, each editor at its last checkpoint, and what editing added "
        f"to each (of shares in points); means over seeds, {words.count(edited.height, 'editor')}."
    )
    return table(_head(found), _rows(found, shares), caption)


def render_singles(tables: Tables) -> str:
    """Return the quantiles of δ over edits that each start from the unedited weights (RECT, section 4.4)."""
    found = tabulate_single_edits(tables)
    if found.is_empty():
        return render_missing(
            "single-weights", "an editor with `editing: single`, whose edits each start from W₀"
        )
    caption = (
        "Quantiles of δ = |ΔW| / |W| over single edits, each of which starts from the unedited weights, as in "
        "section 4.4 of the RECT paper (its 80th and 90th percentile in GPT-2 XL: 0.077 and 0.171). Mean and "
        "standard deviation over the edits; weights that are zero have no δ."
    )
    return table(_head(found), _rows(found, set()), caption)
