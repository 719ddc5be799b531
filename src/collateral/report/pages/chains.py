"""What the report says of chains of edits as HTML: the control, collapses, horizons. Every text is escaped."""

from collections.abc import Mapping, Sequence

import polars as pl

from collateral.report.charts import words
from collateral.report.charts.rows import UNEDITED, find_editors
from collateral.report.figures.abilities import ABILITY_KEYS
from collateral.report.pages.tables import escape, header, text
from collateral.report.pages.verdicts import Row, Tables, frame_matrix


def render_control(tables: Tables, methods: Mapping[str, str]) -> str:
    """Return a line on the editors that change nothing: whether every item's score equals that of the unedited model.

    Args:
        tables: the study's own: ability-items.
        methods: the method of each editor.
    """
    items = tables.get("ability-items", pl.DataFrame())
    if items.is_empty():
        return ""
    key = ["suite", "task", "task_hash", "doc_hash", "metric", "doc_id"]
    before = items.filter(pl.col("editor") == UNEDITED).select(*key, unedited="score")
    lines = []
    for editor in find_editors(items):
        if methods.get(editor) != "noop":
            continue
        pairs = items.filter(pl.col("editor") == editor).join(before, on=key, how="left", nulls_equal=True)
        same = int(pairs.select(pl.col("score").eq_missing(pl.col("unedited")).sum()).item())
        if same == pairs.height:
            lines.append(
                f'<p class="control good">✓ Control: {text(editor)} changes nothing, and all {same:,} item scores '
                "equal those of the unedited model.</p>"
            )
        else:
            lines.append(
                f'<p class="control warn">▼ Control failed: {text(editor)} changes nothing, yet only {same:,} of '
                f"{pairs.height:,} item scores equal those of the unedited model; do not trust the numbers below.</p>"
            )
    return "".join(lines)


def render_collapses(tables: Tables) -> str:
    """Return one line per chain that collapsed: when, why, and whether its later checkpoints were evaluated."""
    rows = tables.get("collapses", pl.DataFrame())
    if rows.is_empty() or not rows["collapsed"].any():
        return ""
    several = rows["seed"].n_unique() > 1
    lines = []
    for row in rows.filter(pl.col("first")).sort("edits", maintain_order=True).to_dicts():
        seed = f" (seed {row['seed']})" if several else ""
        later = rows.filter(
            (pl.col("editor") == row["editor"])
            & pl.col("seed").eq_missing(pl.lit(row["seed"]))
            & (pl.col("edits") > row["edits"])
        )
        after = (
            "" if later.is_empty() or later["evaluated"].all() else "; later checkpoints were not evaluated"
        )
        lines.append(
            f"<li>{text(row['editor'])}{seed} collapsed at {row['edits']} edits: "
            f"{escape(row['reasons'])}{after}.</li>"
        )
    return f'<p class="caption"><b>Collapses.</b></p><ul>{"".join(lines)}</ul>'


def render_horizons(tables: Tables, order: Sequence[str]) -> str:
    """Return the number of edits until each ability has lost the share asked about, with its interval."""
    rows = tables.get("horizons", pl.DataFrame())
    if rows.is_empty():
        return ""
    columns = rows.unique(ABILITY_KEYS, keep="first", maintain_order=True).to_dicts()
    own = {(row["editor"], *(row[key] for key in ABILITY_KEYS)): row for row in rows.to_dicts()}
    body = [
        f'<tr data-editor="{escape(editor)}"><th scope="row">{text(editor)}</th>'
        + "".join(
            _horizon(own.get((editor, *(column[key] for key in ABILITY_KEYS))), column["ability"])
            for column in columns
        )
        + "</tr>"
        for editor in order
        if editor in set(rows["editor"])
    ]
    head = [header("Editor")]
    head += [
        f'<th scope="col" class="number" data-ability="{escape(column["ability"])}">{text(column["ability"])}'
        f'<span class="note">{escape(column["task"])}</span></th>'
        for column in columns
    ]
    loss = f"{100 * rows['loss'][0]:g}%"
    caption = (
        f"<b>Edit horizons.</b> Number of edits until an ability has lost {loss} of what it had above chance, "
        "with its interval; “&gt;” where that is not reached by the editor’s last checkpoint."
    )
    return f'<p class="caption">{caption}</p>' + frame_matrix(head, body, f"Edits until {loss} is lost")


def _horizon(row: Row | None, ability: str) -> str:
    about = f'class="number" data-ability="{escape(ability)}"'
    if row is None:
        return f"<td {about}>–</td>"
    beyond = f"&gt; {row['last_edits']}"
    shown = words.number(row["horizon"], 3) if row["horizon"] is not None else beyond
    low = words.number(row["low"], 3) if row["low"] is not None else beyond
    high = words.number(row["high"], 3) if row["high"] is not None else beyond
    bars = (
        "" if row["low"] is None and row["high"] is None else f' <span class="error">[{low}, {high}]</span>'
    )
    return f"<td {about}>{shown}{bars}</td>"
