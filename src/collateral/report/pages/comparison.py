"""Two results folders side by side: their tables, and one page in the report's layout with the differences first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.analysis.statistics.compare_runs import compare_runs
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.tables.collect import KEY
from collateral.analysis.tables.gather import write_tables
from collateral.analysis.tables.results_folder import compare_presence, compare_settings, read_results
from collateral.io.atomic import write_text
from collateral.report.charts import words
from collateral.report.pages.layout import Page, Section, render_document
from collateral.report.pages.tables import escape, render_rows, text

SHOWN, MOST = 8, 200  # rows of a table that stand open, and that are folded below them; the files hold all
ROUNDING = 1e-9  # relative
PAIRED = ("abilities", "probes")
STUDY = ("model", "dataset", "seed")  # of a checkpoint; shown where there are several
_LEFT_OUT = {*KEY, "suite", "ability", "scale", "low", "high", "interval", "p", "test"}
_PHRASES = {"metric", "when", "measure", "statistic"}
ALPHA = 0.05  # what the first sentence counts
_COUNTED = {"abilities": "abilities", "probes": "measures of probes", "weights": "weight statistics"}
SECTIONS = {
    "abilities": (
        "Abilities, paired by item",
        "B − A per checkpoint and task; of perplexities ln(B / A). Intervals are uncorrected, p (Holm) is corrected "
        "over all rows.",
    ),
    "probes": (
        "Edit success, paired by fact",
        "B − A per checkpoint, kind of probe and measure, means over probes. A fact's probes are one item of the "
        "test; p (Holm) is corrected over all rows.",
    ),
    "unpaired": ("What both have and cannot be paired", "These are in no difference above."),
    "weights": ("Weight statistics", "Relative difference: (B − A) / |A|."),
    "presence": (
        "What only one has",
        "Models, data sets, seeds, editors, checkpoints and tasks that the other folder lacks.",
    ),
    "settings": ("Settings, versions, machine", "Values that differ."),
}


def write_comparison(folder_a: Path, folder_b: Path, out: Path) -> str:
    """Write the tables and the page of B against A to `out`; return the summary and the page's path.

    Raises:
        CollateralError: one of the two is no results folder.
    """
    a, b = read_results(folder_a), read_results(folder_b)
    inference = a.run.get("settings", {}).get("inference")
    tables = compare_runs(a.tables, b.tables, Terms.of(inference) if inference else Terms())
    tables |= {"presence": compare_presence(a, b), "settings": compare_settings(a, b)}
    write_tables(tables, out)
    write_text(
        out / "index.html", render_comparison(tables, str(folder_a), str(folder_b), bool(a.run and b.run))
    )
    return f"{summarize_differences(tables)}\nPage: {out / 'index.html'}\n"


def render_comparison(tables: Mapping[str, pl.DataFrame], a: str, b: str, recorded: bool) -> str:
    """Return the page.

    Args:
        tables: name of `SECTIONS` → rows.
        a: name of folder A.
        b: of folder B.
        recorded: whether both have a record of their settings and versions.
    """
    opening = (
        f"<p>A: <code>{text(a)}</code><br>B: <code>{text(b)}</code></p>"
        f'<p class="lead">{escape(summarize_differences(tables))}</p>'
    )
    studies = pl.concat([rows.select(STUDY) for rows in tables.values() if "seed" in rows.columns])
    varying = [name for name in STUDY if studies[name].drop_nulls().n_unique() > 1]
    sections = [
        Section(name, title, _section(name, tables[name], caption, recorded, varying))
        for name, (title, caption) in SECTIONS.items()
    ]
    scope = ", ".join(
        str(name) for column in STUDY[:2] for name in studies[column].drop_nulls().unique().sort()
    )
    page = Page("index", "Comparison", "Two studies side by side", opening, (), sections)
    return render_document(page, [page], scope or "no data", "")


def summarize_differences(tables: Mapping[str, pl.DataFrame]) -> str:
    """Return in one sentence or two whether the folders differ."""
    paired = {name: len(tables[name]) for name in _COUNTED}
    differing = {name: len(select_differing(name, tables[name])) for name in paired}
    aside = [SECTIONS[name][0].lower() for name in ("unpaired", "presence", "settings") if len(tables[name])]
    left = f" Listed apart: {'; '.join(aside)}." if aside else ""
    if not any(paired.values()):
        return "Nothing can be compared: the folders have no checkpoint with the same items in common." + left
    if not any(differing.values()):
        counts = ", ".join(f"{paired[name]} {noun}" for name, noun in _COUNTED.items())
        return f"No difference beyond rounding in what both have: {counts}.{left}"
    clear = sum(int((tables[name]["p_holm"] < ALPHA).sum()) for name in PAIRED)
    counts = ", ".join(f"{differing[name]} of {paired[name]} {noun}" for name, noun in _COUNTED.items())
    return f"B differs from A in {counts}; after Holm's correction p < {ALPHA} in {clear} of the paired ones.{left}"


def select_differing(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a section that differ by more than rounding: `ROUNDING` of the larger value.

    As many items better as worse leave a score as it was; they differ all the same. A value that is not finite
    differs from one that is. Of tables that are not counted every row is a difference.
    """
    if name not in _COUNTED:
        return rows
    larger = pl.max_horizontal(pl.col("a").abs(), pl.col("b").abs())
    close = ((pl.col("a") - pl.col("b")).abs() <= ROUNDING * larger).fill_null(False)
    differs = ~pl.col("a").eq_missing(pl.col("b")) & ~close
    return rows.filter(differs | (pl.col("worse").fill_null(0) > 0) if name in PAIRED else differs)


def _sorted(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a section, the clearest difference (paired) or the largest first."""
    if name in PAIRED:
        return rows.sort(pl.col("p").fill_null(2), -pl.col("estimate").abs(), maintain_order=True)
    if name == "weights":
        return rows.sort(-pl.col("relative").abs().fill_null(float("inf")), maintain_order=True)
    return rows


def _section(name: str, rows: pl.DataFrame, caption: str, recorded: bool, varying: Sequence[str]) -> str:
    """Return a section's caption, the first rows that differ, all rows folded, and links to the files."""
    if name == "settings" and not recorded:
        return "<p>Not known: a folder has no report/run.json; <code>make report</code> writes one.</p>"
    if rows.is_empty():
        return f"<p>{'No pair: nothing that both have.' if name in _COUNTED else 'None.'}</p>"
    rows = _sorted(name, rows)
    differing = select_differing(name, rows)
    count = f" {len(differing)} of {len(rows)} rows differ." if name in _COUNTED else ""
    parts = [f'<p class="caption">{escape(caption + count)}</p>']
    if len(differing):
        parts.append(render_rows(_display(differing.head(SHOWN), varying), f"{name}-first")[0])
    if len(rows) > min(len(differing), SHOWN):
        folded = render_rows(_display(rows, varying), name, MOST)[0]
        parts.append(f"<details><summary>All {len(rows)} rows</summary>{folded}</details>")
    files = "".join(
        f'<a href="{name}.{kind}" download>{said}</a>'
        for kind, said in (("csv", "CSV"), ("parquet", "Parquet"))
    )
    return "".join([*parts, f'<p class="files">Files: {files}</p>'])


def _display(rows: pl.DataFrame, varying: Sequence[str]) -> pl.DataFrame:
    """Return the rows as the page shows them: the checkpoint in one column, the interval in one, few others."""
    if "editor" not in rows.columns:
        return rows
    return pl.DataFrame([_display_row(row, varying) for row in rows.to_dicts()], infer_schema_length=None)


def _display_row(row: Mapping[str, Any], varying: Sequence[str]) -> dict[str, Any]:
    edits = f", {words.count(row['edits'], 'edit')}" if row["edits"] else ""
    shown = {"checkpoint": row["editor"] + edits, **{name: row[name] for name in varying}}
    for name, value in row.items():
        if name not in _LEFT_OUT:
            shown[name] = value.replace("_", " ") if name in _PHRASES else value
        if name == "high":
            shown["interval"] = words.interval(row["low"], row["high"])
    return shown
