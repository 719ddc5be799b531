"""The report page: complete, self-contained, and safe with hostile text anywhere in the tables."""

import base64
import gzip
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest

import inferred_frames as inferred
import report_frames as frames
from collateral.errors import CollateralError
from collateral.report.charts.figure import find_instances
from collateral.report.figures.registry import FIGURES as REGISTERED
from collateral.report.pages import layout as pageparts
from collateral.report.pages import pages
from collateral.report.pages import tables as pagetables
from collateral.report.render import draw_figures, number_rows

PAGES = ("index.html", "abilities.html", "edits.html", "weights.html", "cost.html")
FIRST = "index.html"
TABLES = frames.tables() | inferred.tables()
FIGURES = {figure.name for figure in REGISTERED if find_instances(TABLES, figure)}
ALIKE = ("value", "editor", "edits", "seed")


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
def report() -> dict[str, str]:
    return pages.render_pages(TABLES, frames.run_info())


@pytest.fixture(scope="module")
def documents(report) -> dict[str, Document]:
    return {name: Document(page) for name, page in report.items()}


@pytest.fixture(scope="module")
def hostile() -> dict[str, str]:
    tables = frames.tables(first=frames.HOSTILE, words=frames.HOSTILE) | inferred.tables(first=frames.HOSTILE)
    named = {
        name: table.with_columns(pl.lit(f"tiny {frames.HOSTILE}").alias("model"))
        if "model" in table.columns
        else table
        for name, table in tables.items()
    }
    for name in ("abilities", "comparisons"):
        named[name] = named[name].with_columns(ability=pl.col("ability") + frames.HOSTILE)
    return pages.render_pages(named, frames.run_info(frames.HOSTILE))


def specs(document: Document) -> list[dict]:
    kinds = [attributes.get("type") for tag, attributes in document.elements if tag == "script"]
    return [
        json.loads(text)
        for kind, text in zip(kinds, document.scripts, strict=True)
        if kind == "application/json"
    ]


def test_every_family_has_its_page_and_every_link_its_target(report, documents):
    assert tuple(report) == PAGES
    for name, document in documents.items():
        ids = document.attributes("id")
        assert len(ids) == len(set(ids))
        for href in document.attributes("href"):
            file, _, anchor = href.partition("#")
            if href.startswith("../figures/"):
                continue
            assert (file or name) in PAGES
            assert not anchor or anchor in documents[file or name].attributes("id")
        current = [a for tag, a in document.elements if a.get("aria-current") == "page"]
        assert [a["href"] for a in current] == [name]


def test_headings_step_down_one_at_a_time_from_one_h1(documents):
    for document in documents.values():
        levels = [int(tag[1]) for tag, _ in document.elements if re.fullmatch("h[1-6]", tag)]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_verdicts_come_first_and_the_provenance_last(documents):
    sections = [a["id"] for tag, a in documents[FIRST].elements if tag == "section"]
    assert sections[:3] == ["verdict", "findings", "overview"]
    assert sections[-1] == "provenance"


def test_each_page_is_one_file(report, documents):
    for name, document in documents.items():
        page = report[name]
        assert not [value for key in ("src", "srcset", "data") for value in document.attributes(key)]
        assert not [href for href in document.attributes("href") if re.match(r"[a-z]+:|//", href)]
        assert not re.search(r"@import|url\(", page[: page.index("</style>")])
        assert not re.search(r"\bimport\s*\(|\bimport\s+[\w{*\"']", document.scripts[-1])
    assert sum(len(page.encode()) for page in report.values()) < 3_000_000


def test_the_chart_library_is_there_once_and_the_policy_names_its_hash(documents):
    for name, document in documents.items():
        kinds = [attributes.get("type") for tag, attributes in document.elements if tag == "script"]
        charts = len(document.attributes("data-chart"))
        packed = ["text/plain"] if charts else []
        assert kinds == ["application/json"] * charts + packed + ["module"], name
        scripts = [document.scripts[-1]]
        if packed:
            scripts.append(gzip.decompress(base64.b64decode(document.scripts[-2])).decode())
            assert "vegaEmbed" in scripts[-1]
        policy = next(value for value in document.attributes("content") if value.startswith("default-src"))
        for script in scripts:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none';")
        assert "unsafe-eval" not in policy
        assert "connect-src 'none'" in policy


def test_every_figure_has_chart_caption_files_and_data(documents):
    charts = [chart for document in documents.values() for chart in document.attributes("data-chart")]
    assert sorted(charts) == sorted(FIGURES)
    assert {"overview", "verdicts", "tradeoffs", "abilities", "efficacy", "retention", "norms"} <= FIGURES
    for document in documents.values():
        for name, spec in zip(document.attributes("data-chart"), specs(document), strict=True):
            files = [href for href in document.attributes("href") if href.startswith("../figures/")]
            assert {f.rpartition(".")[2] for f in files if f"/{name}." in f} == {"svg", "png", "csv"}
            assert spec["description"] in document.text
            assert spec["description"] in document.attributes("aria-label")


def test_every_point_of_a_chart_knows_its_row_in_the_table_below():
    """The number in the chart's data leads to a row with the same editor, edits and value."""
    for one in draw_figures(TABLES):
        rows = one.points.to_dicts()
        data = [datum for part in one.spec["datasets"].values() for datum in part if "what" not in datum]
        assert data, one.name
        linked = [datum for datum in data if "row" in datum]
        if one.figure.name in ("overview", "abilities", "efficacy", "shares", "norms", "heatmaps"):
            assert len(linked) == len(data), one.name
        for datum in linked:
            row = rows[datum["row"]]
            for key in set(ALIKE) & set(row) & set(datum):
                same = pytest.approx(datum[key], rel=1e-5) if key == "value" else datum[key]
                assert row[key] == same, (one.name, key)


def test_rows_that_a_chart_shows_alike_are_told_apart_by_the_panels_title():
    points = pl.DataFrame({"task": ["a", "b"], "editor": ["rome", "rome"], "value": [0.5, 0.5]})
    layers = [{"data": {"name": "points"}}, {"data": {"name": "rule"}}]
    spec = {
        "concat": [{"title": {"text": "b"}, "layer": layers}],
        "datasets": {
            "points": [{"editor": "rome", "value": 0.5}],
            "rule": [{"what": "chance", "value": 0.5}],
        },
    }
    number_rows(spec, points)
    assert spec["datasets"]["points"] == [{"editor": "rome", "value": 0.5, "row": 1}]
    assert spec["datasets"]["rule"] == [{"what": "chance", "value": 0.5}]


def test_controls_are_there_only_where_there_is_a_choice(documents):
    names = [a.get("name") for tag, a in documents[FIRST].elements if tag == "select"]
    assert names == ["editor", "ability", "from", "to"]  # one model and data set, one seed
    one = {
        name: table.filter(pl.col("edits") != 1) if "edits" in table.columns else table
        for name, table in TABLES.items()
    }
    alone = Document(pages.render_pages(one, {})["weights.html"])
    assert [a.get("name") for tag, a in alone.elements if tag == "select"] == ["editor"]


def test_two_seeds_can_be_chosen():
    both = {
        name: pl.concat([table, table.with_columns(seed=pl.lit(2, dtype=table.schema["seed"]))])
        if "seed" in table.columns
        else table
        for name, table in TABLES.items()
    }
    document = Document(pages.render_pages(both, {})[FIRST])
    assert "seed" in [a.get("name") for tag, a in document.elements if tag == "select"]
    overview = specs(document)[0]
    seeds = {datum["seed"] for data in overview["datasets"].values() for datum in data if "seed" in datum}
    assert seeds == {"all", "1", "2"}
    assert {"name": "seed", "value": "all"} in overview["params"]


def test_several_models_get_figures_of_their_own():
    both = {
        name: pl.concat([table, table.with_columns(model=pl.lit("Other Model"))])
        if "model" in table.columns
        else table
        for name, table in TABLES.items()
    }
    names = {one.name for one in draw_figures(both)}
    assert names == {f"{name}-{model}-capitals" for name in FIGURES for model in ("tiny", "other-model")}


def test_same_tables_give_the_same_bytes(report):
    assert pages.render_pages(TABLES, frames.run_info()) == report


def rows(markup: str) -> list[list[str]]:
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, flags=re.DOTALL)
    return [[Document(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in found]


def test_summary_holds_changes_in_points_and_ratios():
    tables = frames.tables()
    markup = pagetables.render_summary(tables["abilities"], tables["efficacy"])
    table = {row[0]: row[1:] for row in rows(markup)}
    assert table["Measure"] == ["Unedited", "rome5 edits", "rome-rect-405 edits"]
    # sqrt(0.03² + 0.04²) = 0.05; -0.12 is more than twice that, -0.02 is not
    assert table["sentimentsst2, acc, n = 200"] == ["60.0%", "▼ −12.0 ± 5.0", "−2.0 ± 5.0"]
    assert table["language modellingprose, word perplexity, n = 60"] == ["30.00", "×1.500", "×1.100"]
    chance = table["yes/noboolq, acc, n = 100at chance before editing: harm not measurable"]
    assert chance == ["52.0%", "−22.0 ± 6.4", "−2.0 ± 6.4"]  # sqrt(0.05² + 0.04²); at chance: no mark
    assert table["reliabilitygeneration"][1:] == ["80.0% ± 20.0", "100.0%"]


def test_distances_follow_table_1():
    table = rows(pagetables.render_distances(frames.tables()["weights"]))
    assert table[0] == ["Editor", "Edits", "Manhattan distance", "δ > 0.077 (%)", "δ > 0.171 (%)"]
    assert table[1:3] == [["rome", "1", "2.0", "2.00", "0.80"], ["rome", "5", "10.0", "10.00", "4.00"]]
    assert table[4] == ["rome-rect-40", "5", "5.0", "5.00", "2.00"]


def test_long_tables_are_cut_with_a_note():
    markup, cut = pagetables.render_rows(pl.DataFrame({"x": list(range(500))}), "long", most=200)
    assert cut
    assert markup.count("<tr id=") == 200
    assert 'id="long-row-199"' in markup
    assert "The first 200 of 500 rows" in markup
    assert not pagetables.render_rows(pl.DataFrame({"x": [1]}), "short")[1]


def test_a_skipped_edit_is_said_to_be_skipped():
    """Its row has the word in place of a norm, for that editor alone."""
    table = rows(pagetables.render_edits(frames.tables()["edits"]))
    assert table[5][-2:] == ["2.500", "skipped"]
    assert [row[-1] for row in table].count("skipped") == 1


def test_known_share():
    assert rows(pagetables.render_known(frames.tables()["known"]))[1] == [
        "tiny",
        "capitals",
        "8",
        "6",
        "75.0%",
    ]


@pytest.mark.parametrize("absent", ["all", "abilities", "efficacy", "weights", "heatmaps", "edits", "known"])
def test_missing_data_is_named_where_it_would_stand(absent):
    tables = {} if absent == "all" else {**TABLES, absent: pl.DataFrame()}
    report = pages.render_pages(tables, {})
    assert tuple(report) == PAGES
    documents = {name: Document(page) for name, page in report.items()}
    text = "".join(document.text for document in documents.values())
    assert "Missing: the table " + ("abilities" if absent == "all" else absent) in text
    drawn = {chart for document in documents.values() for chart in document.attributes("data-chart")}
    without = {one.name for one in REGISTERED if absent not in (*one.tables, *one.uses)}
    needing = {one.name for one in REGISTERED if absent in one.tables}
    assert FIGURES & without <= drawn if absent != "all" else not drawn
    assert not drawn & needing
    listed = {
        a["href"]
        for _, a in documents[FIRST].elements
        if "#" in (a.get("href") or "#") and a.get("href", "#")[0] != "#"
    }
    assert {href.partition("#")[2] for href in listed} == {one.name for one in REGISTERED} - drawn


def test_without_comparisons_the_summary_has_the_plain_differences():
    tables = {name: table for name, table in TABLES.items() if name != "comparisons"}
    document = Document(pages.render_pages(tables, {})[FIRST])
    assert "▼ −12.0 ± 5.0" in document.text
    assert "Verdicts: need the paired comparison" in document.text


def test_hostile_text_stays_text(hostile):
    charts = 0
    for page in hostile.values():
        document = Document(page)
        tags = [tag for tag, _ in document.elements]
        own = len(document.attributes("data-chart"))
        charts += own
        assert "img" not in tags
        assert tags.count("script") == own + (2 if own else 1)
        assert len(re.findall(r"</script", page, flags=re.IGNORECASE)) == tags.count("script")
        assert not [
            name for _, attributes in document.elements for name in attributes if name.startswith("on")
        ]
        assert "\x00" not in page
        for script, spec in zip(document.scripts, specs(document), strict=False):
            assert not set("<>&\u2028\u2029\u202e") & set(script)
            assert spec["concat"]
        if own:
            assert frames.SCRIPT_END in document.text
            assert frames.IMAGE in document.text
            assert any(frames.SCRIPT_END in json.dumps(spec) for spec in specs(document))
    assert charts == len(FIGURES)


def test_hostile_names_cannot_leave_the_folder_of_figures():
    tables = {
        name: pl.concat([table, table.with_columns(model=pl.lit("../../etc/x"))])
        if "model" in table.columns
        else table
        for name, table in TABLES.items()
    }
    names = [one.name for one in draw_figures(tables)]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) and ".." not in name for name in names)


def test_json_that_cannot_be_written_is_refused():
    with pytest.raises(CollateralError, match="not finite"):
        pageparts.dump_script_json({"value": float("nan")})
    assert pageparts.dump_script_json("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'


def test_the_studys_own_title_stands_on_the_page_as_text():
    run = {"settings": {"study": {"title": "Mine </script><b>&"}}}
    for page in pages.render_pages(frames.tables(), run).values():
        assert "Mine </script><b>&: " in Document(page).text
