"""The papers' tables stand on the pages: numbers from the hand-made frames."""

import re
from html import unescape

import polars as pl

import report_frames as frames
from collateral.report.pages import paper_tables as pagepapers


def rows(markup: str) -> list[list[str]]:
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, flags=re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in found]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_edit_success_is_told_right_after_each_edit_and_at_the_checkpoint():
    """The first editor keeps four of five edits; paraphrases of three facts take; two neighbours of five stay."""
    table = rows(pagepapers.render_success(frames.tables()))
    assert table[0] == [
        "editor",
        "edits",
        "evaluation",
        "efficacy",
        "paraphrase",
        "specificity",
        "average",
        "facts",
    ]
    told = {tuple(row[:3]): row[3:] for row in table[1:]}
    assert told["rome", "5", "current"] == ["80.0%", "60.0%", "40.0%", "60.0%", "5"]
    assert told["rome", "5", "original"][0] == "100.0%"


def test_abilities_are_told_before_and_after_with_what_editing_added():
    table = rows(pagepapers.render_abilities(frames.tables()))
    by = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    assert by["unedited"]["sst2 (acc)"] == "60.0%"
    assert by["rome"]["sst2 (acc)"] == "48.0%"
    assert by["rome"]["change of sst2 (acc)"] == "−12.0"
    assert by["rome"]["prose (word perplexity)"] == "45.00"


def test_quantiles_of_single_edits_are_means_over_edits():
    """δ's 80th percentile is 0.1 and 0.3 in two edits: mean 0.2, standard deviation √(2 · 0.1²) = 0.1414."""
    key = {"model": "tiny", "dataset": "capitals", "seed": 1, "editor": "alone", "edits": 2, "parameter": "w"}
    own = pl.DataFrame(
        [
            {
                **key,
                "position": n,
                "fact_id": f"f{n}",
                "statistic": "delta_quantile",
                "threshold": 0.8,
                "value": v,
            }
            for n, v in ((1, 0.1), (2, 0.3))
        ]
    )
    table = rows(pagepapers.render_singles({"single-weights": own}))
    assert table[1] == ["alone", "0.8000", "0.2000", "0.1414", "2"]


def test_what_a_study_lacks_is_named():
    for make, table in (
        (pagepapers.render_success, "efficacy"),
        (pagepapers.render_abilities, "abilities"),
        (pagepapers.render_singles, "single-weights"),
    ):
        assert f"the table <b>{table}</b> has no rows" in make({table: pl.DataFrame()})
