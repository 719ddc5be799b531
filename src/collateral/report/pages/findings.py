"""The findings at the top of the report: one sentence an answer, computed from the inferred tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from collateral.report.charts import words
from collateral.report.charts.rows import make_legible
from collateral.report.figures.predictors import predictors_finding
from collateral.report.pages import verdicts as pageverdicts

Tables = Mapping[str, pl.DataFrame]


def state_findings(tables: Tables) -> list[str]:
    """Return plain sentences: who harms what, who does not, what a regulariser rescues, which change goes with it.

    Args:
        tables: a study's own: comparisons, collapses, tradeoffs, editors, predictors; what is missing says nothing.
    """
    said = [*_verdicts(tables), *_collapses(tables), *_rescues(tables), *_predictor(tables)]
    return [sentence for sentence in said if sentence]


def _table(tables: Tables, name: str) -> pl.DataFrame:
    return tables.get(name, pl.DataFrame())


def _verdicts(tables: Tables) -> list[str]:
    comparisons = _table(tables, "comparisons")
    if comparisons.is_empty():
        return []
    rows = pageverdicts.select_final(comparisons)
    measured = rows.filter(pl.col("verdict").is_in(["harm", "no harm", "inconclusive", "collapsed"]))
    if measured.is_empty():
        return ["No ability could be measured: all are at chance before editing, or not evaluated."]
    harmed: dict[str, list[str]] = defaultdict(list)
    for row in measured.filter(pl.col("verdict").is_in(["harm", "collapsed"])).to_dicts():
        harmed[row["editor"]].append(row["ability"])
    total = dict(measured.group_by("editor").len().iter_rows())
    said = []
    if harmed:
        ranked = sorted(harmed, key=lambda editor: -len(harmed[editor]) / total[editor])
        told = [
            f"{editor} ({'all: ' if len(harmed[editor]) == total[editor] > 1 else ''}"
            f"{words.join(list(dict.fromkeys(harmed[editor])))})"
            for editor in ranked
        ]
        said.append(f"Harm is shown for {len(harmed)} of {len(total)} editors: {'; '.join(told)}.")
    else:
        said.append("No editor is shown to harm an ability.")
    clear = [
        editor
        for editor, own in measured.group_by("editor", maintain_order=True)
        if (own["verdict"] == "no harm").all()
    ]
    if clear:
        names = words.join([str(editor) for (editor,) in clear])
        said.append(f"For {names}, harm beyond the margin is excluded on every ability that can be measured.")
    unclear = measured.filter(pl.col("verdict") == "inconclusive").height
    if unclear:
        said.append(
            f"{unclear} of {measured.height} cells are inconclusive: each shows the effect that its items could "
            "detect."
        )
    return said


def _collapses(tables: Tables) -> list[str]:
    rows = _table(tables, "collapses")
    if rows.is_empty() or not rows["collapsed"].any():
        return []
    first = rows.filter(pl.col("first")).group_by("editor", maintain_order=True).agg(pl.col("edits").min())
    told = [
        f"{editor} at {edits} edits" for editor, edits in first.sort("edits", maintain_order=True).iter_rows()
    ]
    return [f"The model collapsed under {words.join(told)}."]


def _rescues(tables: Tables) -> list[str]:
    """Return, per method, the regularised editor that keeps most abilities, against the plain one at equal edits."""
    points, about = _table(tables, "tradeoffs"), _table(tables, "editors")
    if points.is_empty() or about.is_empty():
        return []
    kind = "generation" if "generation" in set(points["efficacy_kind"]) else points["efficacy_kind"][0]
    known = points.filter(pl.col("efficacy_kind") == kind).join(
        about.select("editor", "method", "regularizer", "batch_size", "editing").unique("editor"), on="editor"
    )
    said = []
    for (method, _, _), own in known.group_by("method", "batch_size", "editing", maintain_order=True):
        plain = own.filter(pl.col("regularizer") == "none")
        pairs = own.filter(pl.col("regularizer") != "none").join(plain, on="edits", suffix="_plain")
        pairs = pairs.filter(pl.col("edits") == pl.col("edits").max()).drop_nulls(
            ["ability", "ability_plain"]
        )
        if pairs.is_empty():
            continue
        best: dict[str, Any] = max(pairs.to_dicts(), key=lambda row: row["ability"])
        better = "keeps more" if best["ability"] > best["ability_plain"] else "keeps no more"
        said.append(
            f"Of the regularised {method} editors, {best['editor']} {better}: mean ability "
            f"{words.number(best['ability'], 2)} against {words.number(best['ability_plain'], 2)} for "
            f"{best['editor_plain']} after {best['edits']} edits, with {words.percent(best['efficacy'])} against "
            f"{words.percent(best['efficacy_plain'])} of the edits stated."
        )
    return said


def _predictor(tables: Tables) -> list[str]:
    return [] if _table(tables, "predictors").is_empty() else [predictors_finding(tables)]


def list_abilities(tables: Tables) -> Sequence[str]:
    """Return the names of the abilities that the tables know, in order of appearance."""
    found = [
        table["ability"].drop_nulls().unique(maintain_order=True).to_list()
        for name in ("comparisons", "abilities")
        if "ability" in (table := make_legible({name: _table(tables, name)})[name]).columns
    ]
    return list(dict.fromkeys(str(name) for names in found for name in names))
