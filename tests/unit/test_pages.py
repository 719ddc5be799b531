"""The report page: complete, self-contained, and safe with hostile text anywhere in the tables."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import polars as pl
import pytest

import report_frames as frames
from collateral import pages, pagetables
from collateral.errors import CollateralError

SECTIONS = (
    "summary",
    "reading",
    "abilities",
    "efficacy",
    "weights",
    "norms",
    "heatmaps",
    "edits",
    "known",
    "provenance",
)
FIGURES = {"abilities", "efficacy", "retention", "shares", "norms", "heatmaps"}


class Document(HTMLParser):
    """Every element with its attributes, the visible text, and the content of each script."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def page() -> str:
    return pages.render(frames.tables(), frames.run_info())


@pytest.fixture(scope="module")
def document(page) -> Document:
    return Document(page)


@pytest.fixture(scope="module")
def hostile() -> str:
    tables = frames.tables(first=frames.HOSTILE, words=frames.HOSTILE)
    named = {
        name: table.with_columns(pl.lit(f"tiny {frames.HOSTILE}").alias("model"))
        for name, table in tables.items()
    }
    abilities = named["abilities"].with_columns(ability=pl.col("ability") + frames.HOSTILE)
    return pages.render(named | {"abilities": abilities}, frames.run_info(frames.HOSTILE), "figures")


def test_sections_stand_in_order_and_every_link_has_its_target(document):
    ids = document.attributes("id")
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    targets = [href[1:] for href in document.attributes("href") if href.startswith("#")]
    assert len(targets) > len(SECTIONS) - 1
    assert set(targets) <= set(ids)
    assert len(ids) == len(set(ids))


def test_page_is_one_file(page, document):
    assert not [value for name in ("src", "srcset", "data") for value in document.attributes(name)]
    assert not [href for href in document.attributes("href") if re.match(r"[a-z]+:|//", href)]
    assert not re.search(r"@import|url\(", page[: page.index("</style>")])
    assert not re.search(r"\bimport\s*\(|\bimport\s+[\w{*\"']", document.scripts[-1])
    assert len(page.encode()) < 1_200_000


def test_the_chart_library_is_there_once_and_the_policy_names_its_hash(document):
    kinds = [attributes.get("type") for tag, attributes in document.elements if tag == "script"]
    assert sorted(kinds) == ["application/json"] * len(FIGURES) + ["module"]
    digest = base64.b64encode(hashlib.sha256(document.scripts[-1].encode()).digest()).decode()
    policy = next(value for value in document.attributes("content") if value.startswith("default-src"))
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert "connect-src 'none'" in policy


def test_every_figure_has_chart_caption_files_and_data(document):
    assert set(document.attributes("data-chart")) == FIGURES
    hrefs = document.attributes("href")
    for name in FIGURES:
        assert f"figures/{name}.svg" in hrefs
        assert f"figures/{name}.csv" in hrefs
    for script in document.scripts[:-1]:
        spec = json.loads(script)
        assert spec["description"] in document.text
        assert spec["description"] in document.attributes("aria-label")


def test_files_beside_the_page_are_those_that_it_links():
    tables = frames.tables()
    charts, points = pages.figure_charts(tables), pages.figure_csvs(tables)
    assert set(charts) == set(points) >= FIGURES
    assert all(chart.to_dict()["description"] for chart in charts.values())
    assert all(points[name].height > 0 for name in FIGURES)
    assert all(points[name].write_csv() for name in FIGURES)  # no nested columns


def test_several_models_get_figures_of_their_own():
    tables = frames.tables()
    both = {
        name: pl.concat([table, table.with_columns(model=pl.lit("Other Model"))])
        for name, table in tables.items()
    }
    names = set(pages.figure_csvs(both))
    assert names >= {f"{name}-{model}-capitals" for name in FIGURES for model in ("tiny", "other-model")}


def test_same_tables_give_the_same_bytes(page):
    assert pages.render(frames.tables(), frames.run_info()) == page


def rows(markup: str) -> list[list[str]]:
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, flags=re.DOTALL)
    return [[Document(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in found]


def test_summary_holds_changes_in_points_and_ratios():
    tables = frames.tables()
    markup = pagetables.summary(tables["abilities"], tables["efficacy"])
    table = {row[0]: row[1:] for row in rows(markup)}
    assert table["Measure"] == ["Unedited", "rome5 edits", "rome-rect-405 edits"]
    # sqrt(0.03² + 0.04²) = 0.05; -0.12 is more than twice that, -0.02 is not
    assert table["sentimentsst2, acc, n = 200"] == ["60.0%", "▼ −12.0 ± 5.0", "−2.0 ± 5.0"]
    assert table["language modellingprose, word perplexity, n = 60"] == ["30.00", "×1.500", "×1.100"]
    chance = table["yes/noboolq, acc, n = 100at chance before editing: harm not measurable"]
    assert chance == ["52.0%", "−22.0 ± 6.4", "−2.0 ± 6.4"]  # sqrt(0.05² + 0.04²); at chance: no mark
    assert table["reliabilitygeneration"][1:] == ["80.0% ± 20.0", "100.0%"]


def test_distances_follow_table_1():
    table = rows(pagetables.distances(frames.tables()["weights"]))
    assert table[0] == ["Editor", "Edits", "Manhattan distance", "δ > 0.077 (%)", "δ > 0.171 (%)"]
    assert table[1:3] == [["rome", "1", "2.0", "2.00", "0.80"], ["rome", "5", "10.0", "10.00", "4.00"]]
    assert table[4] == ["rome-rect-40", "5", "5.0", "5.00", "2.00"]


def test_long_tables_are_cut_with_a_note():
    markup = pagetables.data_table(pl.DataFrame({"x": list(range(500))}), most=200)
    assert markup.count("<tr>") == 201
    assert "The first 200 of 500 rows" in markup


def test_a_skipped_edit_is_said_to_be_skipped():
    """Its row has the word in place of a norm, for that editor alone."""
    table = rows(pagetables.edits(frames.tables()["edits"]))
    assert table[5][-2:] == ["2.500", "skipped"]
    assert [row[-1] for row in table].count("skipped") == 1


def test_known_share():
    assert rows(pagetables.known(frames.tables()["known"]))[1] == ["tiny", "capitals", "8", "6", "75.0%"]


@pytest.mark.parametrize("absent", ["all", "abilities", "efficacy", "weights", "heatmaps", "edits", "known"])
def test_missing_data_is_named(absent):
    tables = {} if absent == "all" else {**frames.tables(), absent: pl.DataFrame()}
    document = Document(pages.render(tables, {}))
    assert "Missing: the table " + ("abilities" if absent == "all" else absent) in document.text
    drawn = set(document.attributes("data-chart"))
    gone = {"efficacy": {"efficacy", "retention"}, "weights": {"shares", "norms"}, "all": FIGURES}
    assert drawn == FIGURES - gone.get(absent, {absent})


def test_hostile_text_stays_text(hostile):
    document = Document(hostile)
    tags = [tag for tag, _ in document.elements]
    assert "img" not in tags
    assert tags.count("script") == len(FIGURES) + 1
    assert len(re.findall(r"</script", hostile, flags=re.IGNORECASE)) == len(FIGURES) + 1
    assert not [name for _, attributes in document.elements for name in attributes if name.startswith("on")]
    assert frames.SCRIPT_END in document.text
    assert frames.IMAGE in document.text
    assert "\x00" not in hostile
    for script in document.scripts[:-1]:
        assert not set("<>&\u2028\u2029\u202e") & set(script)
        assert json.loads(script)["concat"]
    assert any(frames.SCRIPT_END in json.dumps(json.loads(script)) for script in document.scripts[:-1])


def test_hostile_names_cannot_leave_the_folder_of_figures():
    tables = {
        name: pl.concat([table, table.with_columns(model=pl.lit("../../etc/x"))])
        for name, table in frames.tables().items()
    }
    names = pages.figure_csvs(tables)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) and ".." not in name for name in names)


def test_json_that_cannot_be_written_is_refused():
    with pytest.raises(CollateralError, match="not finite"):
        pages.script_json({"value": float("nan")})
    assert pages.script_json("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'


def test_the_report_needs_neither_torch_nor_lm_eval():
    code = (
        "import sys, collateral.pages; print(sorted({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_studys_own_title_stands_on_the_page_as_text():
    run = {"settings": {"study": {"title": "Mine </script><b>&"}}}
    document = Document(pages.render(frames.tables(), run))
    assert "Mine </script><b>&: " in document.text
