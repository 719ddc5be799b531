"""Two results folders side by side as one page: what they are, what only one has, and B - A where they agree."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from collateral.report.figures.words import number
from collateral.report.pages.assets import style
from collateral.report.pages.tables import escaped, header, table, text

MOST = 300  # rows of a table on the page; the files hold all
ROUNDING = 1e-9  # relative
PAIRED = ("abilities", "probes")
ALPHA = 0.05  # what the first sentence counts
_COUNTED = {"abilities": "abilities", "probes": "measures of probes", "weights": "weight statistics"}
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
        f"<header><h1>{title}</h1><p>A: <code>{text(a)}</code><br>B: <code>{text(b)}</code></p>"
        f'<p class="lead">{escaped(summary(found))}</p></header>{"".join(parts)}'
        "<footer><p>Made by Collateral. This page is one file and loads nothing.</p></footer></main></div></body>"
        "</html>\n"
    )


def summary(found: Mapping[str, pl.DataFrame]) -> str:
    """Return in one sentence or two whether the folders differ."""
    paired = {name: len(found[name]) for name in ("abilities", "probes", "weights")}
    differing = {name: len(differences(name, found[name])) for name in paired}
    aside = [SECTIONS[name].lower() for name in ("unpaired", "presence", "settings") if len(found[name])]
    left = f" Listed apart: {'; '.join(aside)}." if aside else ""
    if not any(paired.values()):
        return "Nothing can be compared: the folders have no checkpoint with the same items in common." + left
    if not any(differing.values()):
        counts = ", ".join(f"{paired[name]} {said}" for name, said in _COUNTED.items())
        return f"No difference beyond rounding in what both have: {counts}.{left}"
    clear = sum(int((found[name]["p_holm"] < ALPHA).sum()) for name in PAIRED)
    counts = ", ".join(f"{differing[name]} of {paired[name]} {said}" for name, said in _COUNTED.items())
    return f"B differs from A in {counts}; after Holm's correction p < {ALPHA} in {clear} of the paired ones.{left}"


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
    if name in PAIRED:
        order = [pl.col("p").fill_null(2), pl.col("estimate").abs()]
        shown = rows.sort(order, descending=[False, True], maintain_order=True)
    elif name == "weights":
        size = pl.col("relative").abs().fill_null(float("inf"))
        shown = rows.sort(size, descending=True, maintain_order=True)
    columns = _columns(name, shown)
    head = [header(escaped(said), is_number) for said, is_number in columns]
    body = [_CELLS.get(name, _plain)(row) for row in shown.head(MOST).to_dicts()]
    cut = f" The first {MOST} of {len(rows)} rows; {name}.csv holds all." if len(rows) > MOST else ""
    return table(head, body, escaped(_SAID[name] + cut))


def _columns(name: str, rows: pl.DataFrame) -> list[tuple[str, bool]]:
    """Return the titles of a table's columns, and whether they hold numbers."""
    if name in PAIRED:
        numbers = ("Items", "A", "B", "B - A", "Interval", "p", "p (Holm)", "Worse, better")
        return [("Checkpoint", False), ("Measure", False), *((said, True) for said in numbers)]
    if name == "weights":
        return [
            ("Checkpoint", False),
            ("Statistic", False),
            *((said, True) for said in ("A", "B", "Relative")),
        ]
    if name == "unpaired":
        return [("Checkpoint", False), ("What", False), ("Reason", False)]
    return [
        ({"a": "A", "b": "B"}.get(one, one.replace("_", " ").capitalize()), False) for one in rows.columns
    ]


def _paired(row: Mapping[str, Any]) -> list[str]:
    if "task" in row:
        measure = _noted(row["ability"], f"{row['task']}, {row['metric'].replace('_', ' ')}")
    else:
        measure = _noted(f"{row['kind']}, {row['when'].replace('_', ' ')}", row["measure"].replace("_", " "))
    interval = None if row["low"] is None else f"{_signed(row['low'])} to {_signed(row['high'])}"
    log_ratio = row.get("scale") == "log_ratio"
    moved = None if row["worse"] is None else f"{row['worse']}, {row['better']}"
    return [
        _checkpoint(row),
        measure,
        _number(row["n"]),
        _number(row["a"]),
        _number(row["b"]),
        _cell(_signed(row["estimate"]), note="ln(B / A)" if log_ratio else ""),
        _cell(interval, note=row["interval"] or ""),
        _cell(_small(row["p"]), note=row["test"] or ""),
        _cell(_small(row["p_holm"])),
        _cell(moved),
    ]


def _weighed(row: Mapping[str, Any]) -> list[str]:
    threshold = "" if row["threshold"] is None else f" {row['threshold']:g}"
    statistic = _noted(row["statistic"].replace("_", " ") + threshold, row["parameter"])
    return [
        _checkpoint(row),
        statistic,
        _number(row["a"]),
        _number(row["b"]),
        _cell(_signed(row["relative"])),
    ]


def _unpaired(row: Mapping[str, Any]) -> list[str]:
    return [_checkpoint(row), f"<td>{text(row['what'])}</td>", f"<td>{text(row['reason'])}</td>"]


def _plain(row: Mapping[str, Any]) -> list[str]:
    return [f"<td>{text('–' if value is None else value)}</td>" for value in row.values()]


_CELLS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "abilities": _paired,
    "probes": _paired,
    "weights": _weighed,
    "unpaired": _unpaired,
}


def _checkpoint(row: Mapping[str, Any]) -> str:
    seed = None if row["seed"] is None else f"seed {row['seed']}"
    where = " · ".join(one for one in (row["model"], row["dataset"], seed) if one)
    what = f"{row['editor']}, {row['edits']} edits" if row["edits"] else row["editor"]
    return f'<th scope="row">{text(what)}<span class="note">{text(where)}</span></th>'


def _noted(said: str, note: str) -> str:
    return f'<td>{text(said)}<span class="note">{text(note)}</span></td>'


def _cell(shown: str | None, note: str = "") -> str:
    beside = f'<span class="note">{escaped(note)}</span>' if note else ""
    return f'<td class="number">{"–" if shown is None else escaped(shown)}{beside}</td>'


def _number(value: float | None) -> str:
    return _cell(None if value is None else str(value) if isinstance(value, int) else number(value))


def _signed(value: float | None) -> str | None:
    """Return a difference with its sign; 0 without."""
    return None if value is None else f"{value:+.3g}".replace("-", "−") if abs(value) > ROUNDING else "0"


def _small(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
