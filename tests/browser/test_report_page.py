"""The report in a real browser: drawn, silent, offline, accessible, and every choice reaches every chart."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest

import inferred_frames as inferred
import report_frames as frames
from chromium import CHROMIUM, browser
from collateral.report.charts.figure import find_instances
from collateral.report.figures.registry import FIGURES as REGISTERED
from collateral.report.pages import pages

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on the PATH; on Debian: apt-get install chromium"
    ),
]
AXE = Path(sys.prefix) / "axe/node_modules/axe-core/axe.min.js"
PAGES = ("index", "abilities", "edits", "weights", "cost")
SOME = {
    "index": {"overview", "tradeoffs"},
    "abilities": {"verdicts", "abilities"},
    "edits": {"efficacy", "retention"},
    "weights": {"shares", "norms", "heatmaps"},
    "cost": set(),
}
POINTS = "path[aria-roledescription=point]"
LONG = "long " * 2000


def figures(page: str) -> list[str]:
    """Return the names of a page's figures that the tables allow, in its order."""
    known = tables()
    return [one.name for one in REGISTERED if one.family == page and find_instances(known, one)]


def tables() -> dict[str, pl.DataFrame]:
    """Two models, two seeds that differ."""
    one = frames.tables() | inferred.tables()
    both = {}
    for name, table in one.items():
        own = table
        if "seed" in own.columns:
            second = own.with_columns(seed=pl.lit(2, dtype=own.schema["seed"]))
            if name == "normalised":
                second = second.with_columns(pl.col("normalised") - 0.1)
            own = pl.concat([own, second])
        if "model" in own.columns:
            own = pl.concat([own, own.with_columns(model=pl.lit("other"))])
        both[name] = own
    return both


def write(folder: Path, report: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in report.items():
        (folder / name).write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"), pages.render_pages(tables(), frames.run_info()))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(chromium):
    chromium.look()
    return chromium


def figure(name: str) -> str:
    return f"document.querySelector('figure[data-chart^=\"{name}\"]')"


def seen(tab, name: str, editor: str) -> list[float]:
    """Return the opacity of each point of an editor in the first study's figure of that name."""
    return tab.value(
        f"[...{figure(name)}.querySelectorAll('{POINTS}')]"
        f".filter(p => p.getAttribute('aria-label').includes('editor: {editor};'))"
        ".map(p => Number(p.getAttribute('opacity') ?? 1))"
    )


def settled(tab) -> None:
    """Wait until the charts have followed a choice."""
    tab.value("new Promise(done => setTimeout(() => requestAnimationFrame(done), 120))")


def choose(tab, name: str, value: str) -> None:
    tab.value(
        f"(() => {{ const s = document.querySelector('form.controls [name={name}]'); s.value = {value!r}; "
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    settled(tab)


@pytest.mark.parametrize("name", PAGES)
def test_every_chart_is_drawn_silently_and_without_network(tab, report, name):
    page = report / f"{name}.html"
    tab.open(page)
    assert tab.console == []
    assert tab.requests == [page.as_uri()]
    drawn = tab.value(
        "[...document.querySelectorAll('figure')].map(f => "
        "[f.dataset.chart, f.dataset.drawn, f.querySelectorAll('svg').length])"
    )
    models = ("tiny", "other")
    names = figures(name)
    assert set(names) >= SOME[name]
    expected = [f"{own}-{model}-capitals" for own in names for model in models]
    assert drawn == [[chart, "yes", 1] for chart in expected]


def test_marks_titles_axes_and_legends_are_there(tab, report):
    tab.open(report / "abilities.html")
    # panels x (editors x checkpoints)
    assert tab.value(f"{figure('abilities')}.querySelectorAll('{POINTS}').length") == 3 * 4
    words = tab.value(f"[...{figure('abilities')}.querySelectorAll('text')].map(t => t.textContent)")
    for expected in ("sentiment", "word perplexity, lower is better", "rome-rect-40", "edits"):
        assert expected in words
    assert any("at chance before editing: harm not measurable" in text for text in words)


def test_a_click_in_a_legend_isolates_the_editor_in_all_charts_and_escape_undoes_it(tab, report):
    tab.open(report / "weights.html")
    assert set(seen(tab, "norms", "rome-rect-40")) == {1}
    label = f"[...{figure('shares')}.querySelectorAll('.role-legend-label text')].find(t => t.textContent === 'rome')"
    tab.click(label)
    settled(tab)
    for name in ("shares", "norms"):
        assert set(seen(tab, name, "rome")) == {1}
        assert max(seen(tab, name, "rome-rect-40")) < 0.5
    assert tab.value("document.querySelector('form.controls [name=editor]').value") == "rome"
    assert "only rome" in tab.value("document.querySelector('form.controls output').textContent")
    tab.value("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    settled(tab)
    assert set(seen(tab, "norms", "rome-rect-40")) == {1}
    assert tab.console == []


def test_the_editor_control_does_the_same_and_marks_the_row_of_the_verdicts(tab, report):
    tab.open(report / "index.html")
    choose(tab, "editor", "rome-rect-40")
    assert max(seen(tab, "overview", "rome")) < 0.5
    away = tab.value("[...document.querySelectorAll('.matrix tr.away')].map(r => r.dataset.editor)")
    assert set(away) == {"rome"}


def test_an_ability_can_be_chosen(tab, report):
    tab.open(report / "abilities.html")
    choose(tab, "ability", "sentiment")
    tab.wait(f"{figure('abilities')}.querySelectorAll('{POINTS}').length === 4")
    tab.click("document.querySelector('form.controls button')")
    tab.wait(f"{figure('abilities')}.querySelectorAll('{POINTS}').length === 12")
    assert tab.console == []


def test_a_seed_can_be_chosen(tab, report):
    tab.open(report / "index.html")

    def heights():
        return tab.value(
            f"[...{figure('overview')}.querySelectorAll('{POINTS}')].map(p => p.getAttribute('aria-label'))"
        )

    before = heights()
    assert len(before) == 3 * 4
    choose(tab, "seed", "2")
    after = heights()
    assert len(after) == 3 * 4
    assert before != after
    assert tab.console == []


def test_a_model_can_be_chosen(tab, report):
    tab.open(report / "weights.html")
    choose(tab, "study", "1")
    shown = tab.value(
        "[...document.querySelectorAll('figure')].filter(f => !f.closest('[hidden]')).map(f => f.dataset.chart)"
    )
    assert shown == [f"{name}-other-capitals" for name in figures("weights")]


def test_a_brush_on_edits_dims_the_other_checkpoints_in_all_charts(tab, report):
    tab.open(report / "weights.html")
    box = tab.value(
        f"(() => {{ const f = {figure('shares')}; f.scrollIntoView({{block: 'center', behavior: 'instant'}}); "
        "const b = f.querySelector('.mark-group.role-scope .background').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    middle = box[1] + box[3] / 2
    tab.drag((box[0] + 0.5 * box[2], middle), (box[0] + box[2] - 2, middle))
    settled(tab)
    for name in ("shares", "norms"):
        points = tab.value(
            f"[...{figure(name)}.querySelectorAll('{POINTS}')].map(p => "
            "[/edits\\): (\\d+)/.exec(p.getAttribute('aria-label'))[1], Number(p.getAttribute('opacity') ?? 1)])"
        )
        assert {edits for edits, _ in points} == {"1", "5"}
        assert all((opacity == 1) == (edits == "5") for edits, opacity in points)
    assert tab.console == []
    choose(tab, "from", "1")
    assert set(seen(tab, "norms", "rome")) == {1}


def test_a_click_on_a_point_opens_and_marks_its_row(tab, report):
    tab.open(report / "abilities.html")
    point = f"[...{figure('abilities')}.querySelectorAll('{POINTS}')][1]"
    told = tab.value(f"{point}.getAttribute('aria-label')")
    tab.click(point)
    settled(tab)
    row = tab.value("[...document.querySelectorAll('tr.picked td')].map(cell => cell.textContent)")
    assert tab.value("document.querySelector('tr.picked').closest('details').open")
    assert tab.value("document.activeElement.id") == tab.value("document.querySelector('tr.picked').id")
    assert re.search(r"editor: ([\w-]+)", told)[1] in row
    assert re.search(r"edits\): (\d+)", told)[1] in row
    assert tab.value("location.hash").startswith("#abilities-tiny-capitals-row-")
    assert tab.console == []


def test_an_address_with_a_row_opens_it(tab, report):
    page = report / "abilities.html"
    tab.open(page)
    tab.value("location.hash = '#abilities-other-capitals-row-3'")
    tab.wait("document.querySelector('tr.picked')?.id === 'abilities-other-capitals-row-3'")


def test_hover_tells_value_interval_n_seed_and_checkpoint(tab, report):
    tab.open(report / "index.html")
    tab.hover(f"{figure('overview')}.querySelector('{POINTS}')")
    tab.wait("document.querySelector('#vg-tooltip-element.visible')")
    said = tab.value("document.querySelector('#vg-tooltip-element').innerText")
    for expected in ("editor", "checkpoint (edits)", "value", "bar from", "bar to", "seeds"):
        assert expected in said
    assert re.search(r"\bn\b", said)


def test_a_table_that_was_cut_is_filled_when_it_is_opened(tab, tmp_path):
    many = frames.frame(
        [
            {**frames.KEY, "editor": "rome", "edits": 5, "parameter": "m", "block_row": i, "block_col": j}
            | {"value": 0.001 * (1 + i) + 0.00001 * j}
            for i in range(30)
            for j in range(30)
        ]
    )
    folder = write(tmp_path, pages.render_pages({"heatmaps": many}, {}))
    tab.open(folder / "weights.html")
    rows = f"{figure('heatmaps')}.querySelectorAll('details.data tbody tr').length"
    assert tab.value(rows) == 200
    tab.click(f"{figure('heatmaps')}.querySelector('details.data summary')")
    tab.wait(f"{rows} === 900")
    assert tab.console == []


@pytest.mark.parametrize("width", [390, 1440])
def test_panels_stack_on_a_narrow_screen_and_nothing_is_wider_than_it(tab, report, width):
    tab.look(width=width)
    for name in PAGES:
        tab.open(report / f"{name}.html")
        assert tab.value("document.documentElement.scrollWidth") <= width, name
    tab.open(report / "abilities.html")
    assert tab.value(f"{figure('abilities')}.dataset.columns") == {390: "1", 1440: "3"}[width]


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core; `make test` fetches it where npm is installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_fault_of_accessibility(tab, report, name, dark):
    tab.look(dark=dark)
    tab.open(report / f"{name}.html")
    tab.value("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    tab.value(AXE.read_text(encoding="utf-8") + ";0")
    found = tab.value(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => "
        "[v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200) + ' ' + n.failureSummary)]))"
    )
    assert found == []


def test_hostile_text_is_shown_and_does_nothing(tab, tmp_path):
    words = frames.HOSTILE + LONG
    own = frames.tables(first=frames.HOSTILE, words=words) | inferred.tables(first=frames.HOSTILE)
    for name in ("abilities", "comparisons"):
        own[name] = own[name].with_columns(ability=pl.col("ability") + frames.HOSTILE)
    folder = write(tmp_path, pages.render_pages(own, frames.run_info(words)))
    for name in PAGES:
        tab.open(folder / f"{name}.html")
        assert tab.console == [], name
        assert tab.requests == [(folder / f"{name}.html").as_uri()]
        assert "pwned" not in tab.value("document.title")
        assert tab.value("document.querySelectorAll('img, iframe, object').length") == 0
        assert tab.value("[...document.querySelectorAll('figure')].every(f => f.dataset.drawn === 'yes')")
        if SOME[name] and name != "edits":
            legend = tab.value(
                "[...document.querySelectorAll('.role-legend-label text, .role-title-text')].map(t => t.textContent)"
            )
            assert any("</script><script>" in text for text in legend)
        assert tab.value("document.documentElement.scrollWidth") <= 1440
    tab.open(folder / "index.html")
    choose(
        tab,
        "editor",
        frames.HOSTILE.replace("\u2028", "␤")
        .replace("\u2029", "␤")
        .replace("\x00", "␀")
        .replace("\x1b", "␛"),
    )
    assert tab.console == []
    assert "pwned" not in tab.value("document.title")


def test_the_hostile_text_would_act_if_it_were_not_escaped(tab, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><title>safe</title><script>'{frames.SCRIPT_END}</script>"
        "<script>document.documentElement.dataset.ready = 'yes'</script>",
        encoding="utf-8",
    )
    tab.open(page)
    assert tab.value("document.title") == "pwned"
    assert tab.console  # and a fault in a script is seen


def test_a_hundred_thousand_result_rows_make_a_page_that_opens_at_once(tab, tmp_path):
    """What a page draws does not grow with the probes behind it: 20 editors at 5 checkpoints, 1,000 probes each."""
    checkpoints, editors, facts = (1, 5, 10, 50, 100), [f"editor-{n:02d}" for n in range(20)], 1000
    key = pl.DataFrame({"editor": editors}).join(pl.DataFrame({"edits": checkpoints}), how="cross")
    rows = key.join(pl.DataFrame({"position": range(1, facts + 1)}), how="cross").with_columns(
        model=pl.lit("tiny"),
        dataset=pl.lit("capitals"),
        seed=pl.lit(1),
        fact_id=pl.format("fact-{}", "position"),
        kind=pl.lit("reliability"),
        probe=pl.lit(0),
        when=pl.lit("now"),
        token_accuracy=(pl.col("position") % 7 / 7).cast(pl.Float64),
        token_agreement=pl.lit(None, pl.Float64),
        prefers_target=pl.col("position") % 3 == 0,
        generated_match=pl.col("position") % 5 == 0,
        generated_agreement=pl.lit(None, pl.Boolean),
    )
    assert rows.height == 100_000
    report = pages.render_pages({"efficacy": rows}, {})
    assert len(report["edits.html"]) < 2_000_000
    tab.open(write(tmp_path, report) / "edits.html")  # once to fill the browser's caches
    seconds = tab.open(tmp_path / "edits.html")
    assert tab.value(f"{figure('efficacy')}.querySelectorAll('{POINTS}').length") <= 9 * 100
    assert seconds < 15  # measured: 0.5 to 1 second on a busy machine of two cores
    assert tab.console == []
