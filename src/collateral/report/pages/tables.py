"""Tables of the report page as HTML: the summary, the papers' tables, the edits. Every text is escaped here."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from collateral.analysis.tables.collect import is_perplexity
from collateral.report.charts import words
from collateral.report.charts.means import select_all_seeds
from collateral.report.charts.rows import PICTURES, UNEDITED, find_editors
from collateral.report.figures.abilities import ABILITY_KEYS, AT_CHANCE, ability_points
from collateral.report.figures.edits import KINDS, efficacy_points
from collateral.report.figures.weights import MANHATTAN, describe_adapters, norm_points, share_points

_CONTROLS = str.maketrans({mark: shown for mark, shown in PICTURES.items() if mark not in "\t\n"})


def text(value: Any) -> str:
    """Return the value as escaped text, its direction isolated from what stands around it."""
    return f'<bdi dir="auto">{escape(value)}</bdi>'


def escape(value: Any) -> str:
    """Return the value as escaped text for content or a quoted attribute."""
    plain = str(value).translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
    return html.escape(plain, quote=True)


def cell(value: Any, column: str) -> str:
    """Return a table cell; `column` is "number" or "text"."""
    if value is None:
        return '<td class="number">–</td>' if column != "text" else "<td>–</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int):
        return f'<td class="number">{words.number(value, 12) if value < 0 else value}</td>'
    if isinstance(value, float):
        return f'<td class="number">{words.number(value)}</td>'
    return f"<td>{text(value)}</td>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", kind: str = "", label: str = ""
) -> str:
    """Return an HTML table of ready-made header and body cells, in a box that scrolls by itself.

    Args:
        head: header cells.
        rows: body cells.
        caption: ready-made HTML above the table.
        kind: class of the box.
        label: what it is called where it cannot be seen; the caption's first sentence by default.
    """
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return _frame(head, body, caption, kind, label or caption.partition(". ")[0] or "Data")


def _frame(head: Sequence[str], body: str, caption: str, kind: str, label: str) -> str:
    # The caption stands outside the box, so that it wraps where the table scrolls.
    title = f'<p class="caption">{caption}</p>' if caption else ""
    named = escape(html.unescape(re.sub("<[^>]*>", "", label)))
    return (
        f'{title}<div class="scroll {kind}" tabindex="0" role="group" aria-label="{named}">'
        f"<table><thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def header(label: str, number: bool = False) -> str:
    """Return a column header of ready-made HTML."""
    return f'<th scope="col"{" class=number" if number else ""}>{label}</th>'


def render_rows(frame: pl.DataFrame, name: str, most: int = 200) -> tuple[str, bool]:
    """Return a frame as a table whose rows have anchors `{name}-row-{number}`, and whether it was cut at `most` rows.

    The page's script fills a table that was cut from the chart's own data.
    """
    kinds = {column: "number" if frame[column].dtype.is_numeric() else "text" for column in frame.columns}
    head = [header(escape(column.replace("_", " ")), kind == "number") for column, kind in kinds.items()]
    rows = "".join(
        f'<tr id="{escape(name)}-row-{number}">'
        f"{''.join(cell(row[column], kind) for column, kind in kinds.items())}</tr>"
        for number, row in enumerate(frame.head(most).iter_rows(named=True))
    )
    cut = frame.height > most
    note = f"The first {most} of {frame.height} rows; the CSV holds all." if cut else ""
    return _frame(head, rows, note, "tall", f"Data of {name}"), cut


def _final(points: pl.DataFrame) -> dict[str, int]:
    """Return each editor's own last checkpoint."""
    edited = points.filter(pl.col("editor") != UNEDITED)
    return dict(edited.group_by("editor", maintain_order=True).agg(pl.col("edits").max()).iter_rows())


def _change(row: Mapping[str, Any] | None) -> str:
    """Return the cell of one ability and editor: points ± standard error, or the ratio of perplexities."""
    if row is None or row["unedited"] is None:
        return '<td class="number">–</td>'
    if not math.isfinite(row["value"]):
        return f'<td class="number worse">{words.number(row["value"])}</td>'
    error, change = row["change_stderr"], row["change"]
    scale = 100 if row["is_share"] else 1
    if is_perplexity(row["metric"]) and row["unedited"] > 0:
        shown = f"×{words.number(row['value'] / row['unedited'], 4)}"
        error = None
    else:
        shown = words.points(change * scale / 100)
        if not row["is_share"]:
            shown = ("+" if change > 0 else "") + words.number(change)
    bars = "" if error is None else f' <span class="error">± {words.number(scale * error, 2)}</span>'
    known = row["change_stderr"] is not None and not row["at_chance"]
    harm = change < 0 if row["higher_is_better"] else change > 0
    clear = known and abs(change) > 2 * row["change_stderr"]
    look = f' {"worse" if harm else "better"}">{"▼" if harm else "▲"} ' if clear else '">'
    return f'<td class="number{look}{shown}{bars}</td>'


def _ability_rows(points: pl.DataFrame, names: Sequence[str]) -> list[list[str]]:
    final, rows = _final(points), []
    for group in points.partition_by(ABILITY_KEYS, maintain_order=True):
        first = group.row(0, named=True)
        own = {(row["editor"], row["edits"]): row for row in group.to_dicts()}
        base = first["unedited"]
        note = f"{escape(first['task'])}, {escape(first['metric'].replace('_', ' '))}, n = {first['n']}"
        warning = f'<span class="note warn">{AT_CHANCE}</span>' if group["at_chance"].any() else ""
        shown = words.percent(base) if first["is_share"] else words.number(base)
        rows.append(
            [
                f'<th scope="row">{text(first["ability"])}<span class="note">{note}</span>{warning}</th>',
                f'<td class="number">{shown}</td>',
                *(_change(own.get((name, final.get(name, -1)))) for name in names),
            ]
        )
    return rows


def _efficacy_rows(points: pl.DataFrame, names: Sequence[str]) -> list[list[str]]:
    final, rows = _final(points), []
    own = {(row["kind"], row["how"], row["editor"], row["edits"]): row for row in points.to_dicts()}
    for kind in KINDS:
        for how in ("generation", "teacher-forced"):
            cells = [own.get((kind, how, name, final.get(name, -1))) for name in names]
            before = next((r for k, r in own.items() if k[:3] == (kind, how, UNEDITED)), None)
            if any(cells):
                rows.append(
                    [
                        f'<th scope="row">{kind}<span class="note">{how}</span></th>',
                        f'<td class="number">{words.percent(before["value"]) if before else "–"}</td>',
                        *(_share(cell) for cell in cells),
                    ]
                )
    return rows


def _share(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return '<td class="number">–</td>'
    error = row["stderr"]
    bars = f' <span class="error">± {100 * error:.1f}</span>' if error else ""
    return f'<td class="number">{words.percent(row["value"])}{bars}</td>'


def render_summary(abilities: pl.DataFrame, efficacy: pl.DataFrame) -> str:
    """Return the summary: per editor at its last checkpoint what the edits achieved and what they cost."""
    scores = select_all_seeds(ability_points({"abilities": abilities}))
    probes = select_all_seeds(efficacy_points({"efficacy": efficacy}))
    frames = [frame for frame in (scores, probes) if not frame.is_empty()]
    if not frames:
        return render_missing("abilities and efficacy", "the evaluation of at least one checkpoint")
    names = list(dict.fromkeys(name for frame in frames for name in find_editors(frame)))
    final = {name: max(_final(frame).get(name, 0) for frame in frames) for name in names}
    head = [
        header("Measure"),
        header("Unedited", number=True),
        *(
            header(f'{text(name)}<span class="note">{final[name]} edits</span>', number=True)
            for name in names
        ),
    ]
    rows: list[list[str]] = []
    for title, body in (
        ("Did the edits take?", _efficacy_rows(probes, names) if not probes.is_empty() else []),
        ("What else changed?", _ability_rows(scores, names) if not scores.is_empty() else []),
    ):
        if body:
            rows += [[f'<th scope="rowgroup" colspan="{len(head)}">{title}</th>'], *body]
    caption = (
        "Each editor at its last checkpoint. Abilities: change from the unedited model in percentage points ± "
        "standard error of the difference, or the ratio of perplexities. ▼ worse and ▲ better by more than two "
        "standard errors, which are taken as independent before and after: an upper bound, as the items are the "
        "same."
    )
    return table(head, rows, caption, "summary").replace('<tr><th scope="rowgroup"', '<tr class="group"><th')


def render_distances(weights: pl.DataFrame) -> str:
    """Return edits, Manhattan distance and % of δ above each threshold, as RECT's Table 1 sets them out."""
    own = {"weights": weights}
    shares, norms = select_all_seeds(share_points(own)), select_all_seeds(norm_points(own))
    if shares.is_empty() and norms.is_empty():
        return render_missing("weights", "the comparison of the edited weights with the unedited ones")
    levels = shares["threshold"].unique().sort().to_list()
    share = {(row["editor"], row["edits"], row["threshold"]): row["value"] for row in shares.to_dicts()}
    rows = []
    for row in norms.filter(pl.col("panel") == MANHATTAN).to_dicts():
        above = (share.get((row["editor"], row["edits"], level)) for level in levels)
        rows.append(
            [
                f'<th scope="row">{text(row["editor"])}</th>',
                cell(row["edits"], "number"),
                f'<td class="number">{row["value"]:,.1f}</td>',
                *(
                    f'<td class="number">{"–" if value is None else f"{100 * value:.2f}"}</td>'
                    for value in above
                ),
            ]
        )
    head = [header("Editor"), header("Edits", True), header("Manhattan distance", True)]
    head += [header(f"δ &gt; {level:g} (%)", True) for level in levels]
    caption = (
        "Distance of the edited weights from the unedited ones, and the share of elements whose relative change "
        "δ = |ΔW| / |W| exceeds a threshold: the form of Table 1 of the RECT paper (arXiv 2401.04700)."
        + escape(describe_adapters(weights))
    )
    return table(head, rows, caption)


def render_edits(table_of_edits: pl.DataFrame, most: int = 200) -> str:
    """Return the facts edited, in order, with the Frobenius norm of each editor's update."""
    if table_of_edits.is_empty():
        return render_missing("edits", "at least one edited checkpoint")
    key = ["seed", "position", "fact_id"]
    names = find_editors(table_of_edits)
    facts = table_of_edits.unique(key, keep="first", maintain_order=True).sort("seed", "position")
    norm = {
        (row["seed"], row["position"], row["editor"]): (
            row["update_norm"] if row["status"] == "applied" else row["status"]
        )
        for row in table_of_edits.to_dicts()
    }
    several = facts["seed"].n_unique() > 1
    head = [header("Seed", True)] * several + [header("Edit", True)]
    head += [header(word) for word in ("Prompt", "Before", "After")]
    head += [header(f'{text(name)}<span class="note">‖ΔW‖</span>', True) for name in names]
    rows = []
    for row in facts.head(most).to_dicts():
        prompt = row["prompt"].replace("{}", row["subject"], 1)
        rows.append(
            [cell(row["seed"], "number")] * several
            + [cell(row["position"], "number"), f'<td class="prompt">{text(prompt)}</td>']
            + [f"<td>{text(row['target_true'] or '–')}</td>", f"<td>{text(row['target_new'])}</td>"]
            + [cell(norm.get((row["seed"], row["position"], name)), "number") for name in names]
        )
    note = (
        f" The first {most} of {facts.height}; the table of edits holds all." if facts.height > most else ""
    )
    return table(
        head,
        rows,
        "Each prompt, the answer before, the answer the edit asks for, and the Frobenius norm of the update; "
        f"an update that was not finite or too large is skipped where the editor says so.{note}",
        "tall",
    )


def render_known(table_of_known: pl.DataFrame) -> str:
    """Return how many of the data set's facts the unedited model knows."""
    if table_of_known.is_empty():
        return render_missing("known", "the check of which facts the unedited model knows")
    rows = [
        [
            f'<th scope="row">{text(row["model"])}</th>',
            f"<td>{text(row['dataset'])}</td>",
            cell(row["facts"], "number"),
            cell(row["known"], "number"),
            f'<td class="number">{words.percent(row["known"] / row["facts"] if row["facts"] else None)}</td>',
        ]
        for row in table_of_known.to_dicts()
    ]
    head = [header("Model"), header("Data set"), header("Facts", True), header("Known", True)]
    caption = "Facts whose true answer the unedited model gives: an edit of the others replaces no knowledge."
    return table([*head, header("Share", True)], rows, caption)


def render_record(values: Mapping[str, Any], name: str, value: str, label: str) -> str:
    """Return a mapping as a table of two columns."""
    rows = [
        [f'<th scope="row">{text(key)}</th>', f'<td class="hash">{text(entry)}</td>']
        for key, entry in values.items()
    ]
    return table([header(escape(name)), header(escape(value))], rows, label=label)


def render_missing(what: str, maker: str) -> str:
    """Return the paragraph that stands in for something whose table has no rows."""
    return (
        f'<p class="missing">Missing: the table <b>{escape(what)}</b> has no rows for this. It is made by '
        f"{escape(maker)}; set that in the configuration and run <code>snakemake</code> again.</p>"
    )
