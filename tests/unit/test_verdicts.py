"""The verdicts and findings of the summary: each cell says in words what was found, and how sure that is."""

import re

import polars as pl
import pytest

import inferred_frames as inferred
import report_frames as frames
from collateral.report.pages import chains as pagechains
from collateral.report.pages import findings as pagefindings
from collateral.report.pages import verdicts as pageverdicts

TABLES = frames.tables() | inferred.tables()
ORDER = ("rome", "rome-rect-40")


def cells(markup: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, flags=re.DOTALL)
    return [
        [
            re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row)
        ]
        for row in rows
    ]


def test_each_cell_has_symbol_word_effect_and_interval():
    table = cells(pageverdicts.render_matrix(TABLES, ORDER))
    assert table[0][0] == "Editor"
    assert table[0][2].startswith("sentiment sst2, acc; n = 200; unedited 60.0%")
    assert table[1] == [
        "rome 5 edits",
        "80% ± 20",
        "▼ harm −12.0 [−17.0, −7.0]",
        "– at chance −12.0 [−17.0, −7.0]",
        "○ not evaluated : collapsed at 5",
    ]
    assert table[2][2] == "✓ no harm −0.5 [−1.2, 0.2] detectable: 8.0 points"
    assert table[2][4] == "? inconclusive ×1.50 [1.40, 1.60] detectable: ×1.10"


def test_a_cells_title_tells_the_test_behind_it():
    markup = pageverdicts.render_matrix(TABLES, ORDER)
    assert "Holm p = 0.0024 (mcnemar exact)" in markup
    assert "30 items got worse, 6 better" in markup
    assert "margin of 2.00 points" in markup


def test_a_cell_that_no_comparison_has_is_not_evaluated():
    lacking = TABLES["comparisons"].filter(
        ~((pl.col("editor") == "rome-rect-40") & (pl.col("task") == "sst2"))
    )
    table = cells(pageverdicts.render_matrix({**TABLES, "comparisons": lacking}, ORDER))
    assert table[2][2] == "○ not evaluated"


@pytest.mark.parametrize("changed", [0, 2])
def test_the_control_counts_the_item_scores_that_are_equal(changed):
    def rows(editor, scores):
        about = {"suite": "core", "task": "sst2", "task_hash": "t", "metric": "acc", "model": "tiny"}
        return [
            {**about, "editor": editor, "doc_id": n, "doc_hash": str(n), "score": score}
            for n, score in enumerate(scores)
        ]

    scores = [1.0, 0.0, float("nan"), 1.0]
    edited = [*scores[: 4 - changed], *(0.5 for _ in range(changed))]
    items = frames.frame([*rows("unedited", scores), *rows("noop", edited), *rows("rome", [0.0] * 4)])
    said = re.sub(
        "<[^>]+>", "", pagechains.render_control({"ability-items": items}, {"noop": "noop", "rome": "rome"})
    )
    if changed:
        assert said.startswith("▼ Control failed: noop changes nothing, yet only 2 of 4 item scores equal")
    else:
        assert (
            said
            == "✓ Control: noop changes nothing, and all 4 item scores equal those of the unedited model."
        )


def test_collapses_and_horizons_are_told():
    assert "collapsed at 5 edits: perplexity ratio 12 &gt; 10." in pagechains.render_collapses(TABLES)
    table = cells(pagechains.render_horizons(TABLES, ORDER))
    assert table[1] == ["rome", "1.50 [1.00, &gt; 5]"]
    assert table[2] == ["rome-rect-40", "&gt; 5"]
    assert pagechains.render_collapses({}) == pagechains.render_horizons({}, ORDER) == ""


def test_findings_answer_who_harms_what_is_rescued_and_what_goes_with_it():
    assert pagefindings.state_findings(TABLES) == [
        "Harm is shown for 1 of 2 editors: rome (sentiment).",
        "1 of 3 cells are inconclusive: each shows the effect that its items could detect.",
        "The model collapsed under rome at 5 edits.",
        "Of the regularised rome editors, rome-rect-40 keeps more: mean ability 0.80 against 0.20 for rome after 5 "
        "edits, with 100.0% against 80.0% of the edits stated.",
        "manhattan goes with harm most closely: ρ = 0.90 [0.40, 1.0] over 4 checkpoints of 2 chains; for 1 of 2 "
        "statistics the interval leaves out zero.",
    ]
    assert pagefindings.state_findings({}) == []


def test_the_legend_states_the_studys_own_levels():
    said = pageverdicts.render_legend(
        {"alpha": 0.01, "power": 0.9, "margin": {"share": 0.03, "perplexity": 0.1}}
    )
    assert "p ≤ 0.01" in said
    assert "99% interval" in said
    assert "90% power" in said
    assert "(3 points of a score, 10% of a perplexity)" in said
