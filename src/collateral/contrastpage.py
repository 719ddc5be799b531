"""Two results folders side by side as one page: what they are, what only one has, and B - A where they agree."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from collateral.figures.words import number
from collateral.pageassets import style
from collateral.pagetables import escaped, header, table, text

MOST = 300  # rows of a table on the page; the files hold all
ROUNDING = 1e-9  # relative
SECTIONS = {
    "abilities": "Abilities, paired by item",
    "probes": "Edit success, paired by fact",
    "unpaired": "What both have and cannot be paired",
    "weights": "Weight statistics",
    "presence": "What only one has",
    "settings": "Settings, versions, machine",
}
_SAID = {
    "abilities": "B - A per checkpoint and task; of perplexities ln(B / A). Intervals are uncorrected, p (Holm) is "
    "corrected over all rows. Rows that differ stand first.",
    "probes": "B - A per checkpoint, kind of probe and measure, means over probes. A fact's probes are one item "
    "of the test; p (Holm) is corrected over all rows. Rows that differ stand first.",
    "unpaired": "These are in no difference above.",
    "weights": "Relative difference: (B - A) / |A|. The largest stand first.",
    "presence": "Models, data sets, seeds, editors, checkpoints and tasks that the other folder lacks.",
    "settings": "Values that differ.",
}


def render(found: Mapping[str, pl.DataFrame], a: str, b: str, recorded: bool) -> str:
    """Return the page.

    Args:
        found: name of `SECTIONS` → rows.
        a: name of folder A.
        b: of folder B.
        recorded: whether both have a record of their settings and versions.
    """
    title = "Two studies side by side"
    parts = []
    for name, heading in SECTIONS.items():
        rows = found[name]
        body = _table(name, rows) if len(rows) else f"<p>{escaped(_nothing(name, found, recorded))}</p>"
        parts.append(f'<section id="{name}"><h2>{escaped(heading)}</h2>{body}</section>')
    links = "".join(f'<li><a href="#{name}">{escaped(said)}</a></li>' for name, said in SECTIONS.items())
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{title}</title><style>{style()}</style></head><body><div class="frame">'
        f'<nav class="side" aria-label="Sections"><ol>{links}</ol></nav><main>'
        f'<header><p class="kicker">A: {text(a)}; B: {text(b)}</p><h1>{title}</h1>'
        f'<p class="lead">{escaped(summary(found))}</p></header>{"".join(parts)}'
        "<footer><p>Made by Collateral. This page is one file and loads nothing.</p></footer></main></div></body>"
        "</html>\n"
    )


def summary(found: Mapping[str, pl.DataFrame]) -> str:
    """Return in one sentence or two whether the folders differ."""
    paired = {name: len(found[name]) for name in ("abilities", "probes", "weights")}
    compared = (
        f"{paired['abilities']} abilities, {paired['probes']} measures of probes and {paired['weights']} weight "
        "statistics that both have"
    )
    differing = {name: len(differences(name, found[name])) for name in paired}
    aside = [name for name in ("unpaired", "presence", "settings") if len(found[name])]
    left = (
        f" Not compared, or set differently: {', '.join(SECTIONS[name].lower() for name in aside)}."
        if aside
        else ""
    )
    if not any(paired.values()):
        return "Nothing can be compared: the folders have no checkpoint with the same items in common." + left
    if not any(differing.values()):
        return f"No difference beyond rounding in {compared}.{left}"
    clear = sum(int((found[name]["p_holm"] < 0.05).sum()) for name in ("abilities", "probes"))
    counts = ", ".join(f"{differing[name]} of {paired[name]} {name}" for name in paired)
    return (
        f"B differs from A in {counts}; after Holm's correction p < 0.05 in {clear} of the paired ones.{left}"
    )


def differences(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a section that differ by more than rounding: `ROUNDING` of the larger value.

    As many items better as worse leave a score as it was; they differ all the same. What is not finite differs from
    what is.
    """
    larger = pl.max_horizontal(pl.col("a").abs(), pl.col("b").abs())
    moved = (
        ~pl.col("a").eq_missing(pl.col("b"))
        & ((pl.col("a") - pl.col("b")).abs() <= ROUNDING * larger).fill_null(False).not_()
    )
    if name != "weights":
        moved |= pl.col("worse").fill_null(0) > 0
    return rows.filter(moved)


def _nothing(name: str, found: Mapping[str, pl.DataFrame], recorded: bool) -> str:
    if name == "settings" and not recorded:
        return "Not known: a folder has no report/run.json; `make report` writes one."
    return "None." if name in {"unpaired", "presence", "settings"} else "No pair: nothing that both have."


def _table(name: str, rows: pl.DataFrame) -> str:
    shown = rows
    if name in {"abilities", "probes"}:
        shown = rows.sort(
            [pl.col("p").fill_null(2), pl.col("estimate").abs()],
            descending=[False, True],
            maintain_order=True,
        )
    elif name == "weights":
        shown = rows.sort(
            pl.col("relative").abs().fill_null(float("inf")), descending=True, maintain_order=True
        )
    shown = shown.select(one for one in shown.columns if not shown[one].is_null().all())
    head = [header(escaped(_word(one)), shown.schema[one].is_numeric()) for one in shown.columns]
    body = [[_cell(value, one) for one, value in row.items()] for row in shown.head(MOST).to_dicts()]
    cut = f" The first {MOST} of {len(rows)} rows; {name}.csv holds all." if len(rows) > MOST else ""
    return table(head, body, escaped(_SAID[name] + cut))


def _word(column: str) -> str:
    words = {"a": "A", "b": "B", "p_holm": "p (Holm)", "n": "items", "relative": "relative difference"}
    return words.get(column, column.replace("_", " "))


def _cell(value: Any, column: str) -> str:
    if value is None:
        return "<td>–</td>"
    if isinstance(value, float):
        shown = f"{value:+.3g}" if column in {"estimate", "low", "high", "relative"} else number(value)
        return f'<td class="number">{escaped(shown.replace("-", "−"))}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{text(value)}</td>"
