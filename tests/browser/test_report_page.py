"""The report page in a real browser: every chart is drawn, nothing is logged, hostile text does nothing."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import report_frames as frames
from collateral import pages

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on the PATH; on Debian: apt-get install chromium"
    ),
]


class Figures(HTMLParser):
    """Per figure of the rendered page: its attributes, its marks and the text of its axes, titles and legends."""

    def __init__(self, dom: str) -> None:
        super().__init__(convert_charrefs=True)
        self.figures: dict[str, dict[str, object]] = {}
        self.tags: list[str] = []
        self.title = ""
        self._stack: list[str] = []
        self._figure = ""
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.tags.append(tag)
        self._stack.append(tag)
        if tag == "figure":
            self._figure = known["data-chart"]
            self.figures[self._figure] = {"drawn": known.get("data-drawn"), "svg": 0, "marks": 0, "text": []}
        elif self._figure and tag == "svg":
            self.figures[self._figure]["svg"] += 1
        elif (self._figure and tag == "path" and known.get("aria-roledescription") == "point") or (
            self._figure == "heatmaps" and tag == "path" and known.get("fill", "").startswith("rgb")
        ):
            self.figures[self._figure]["marks"] += 1

    def handle_endtag(self, tag):
        if tag in self._stack:
            while self._stack.pop() != tag:
                pass
        if tag == "figure":
            self._figure = ""

    def handle_data(self, data):
        if self._stack and self._stack[-1] == "title":
            self.title += data
        if self._figure and "svg" in self._stack and "text" in self._stack:
            self.figures[self._figure]["text"].append(data)


def open_page(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Return the document after its scripts ran, and the lines of its console."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
        "--v=0",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def written(folder: Path, text: str) -> Path:
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    page = written(folder, pages.render(frames.tables(), frames.run_info()))
    dom, console = open_page(page, folder, "--window-size=1440,3000")
    return Figures(dom), console


def test_every_chart_is_drawn_once_as_svg_with_its_marks(rendered):
    figures, console = rendered
    assert console == []
    assert len(figures.figures) == 6
    assert {name: (f["drawn"], f["svg"]) for name, f in figures.figures.items()} == dict.fromkeys(
        figures.figures, ("yes", 1)
    )
    marks = {name: figure["marks"] for name, figure in figures.figures.items()}
    assert marks == {
        "abilities": 3 * 4,  # panels x (editors x checkpoints)
        "efficacy": 9 * 4,
        "retention": 2 * 4,
        "shares": 2 * 4,
        "norms": 2 * 4,
        "heatmaps": 2 * 4,  # checkpoints x blocks
    }


def test_titles_axes_and_legends_are_written(rendered):
    figures, _ = rendered
    words = figures.figures["abilities"]["text"]
    for expected in ("sentiment", "word perplexity, lower is better", "rome-rect-40", "edits"):
        assert expected in words
    assert "at chance before editing: harm not measurable" in words


def test_narrow_screen_stacks_the_panels(tmp_path):
    page = written(tmp_path, pages.render({"abilities": frames.tables()["abilities"]}, {}))
    columns = {}
    for width in (500, 1440):
        dom, console = open_page(page, tmp_path, f"--window-size={width},900")
        assert console == []
        columns[width] = int(re.search(r'data-chart="abilities"[^>]*data-columns="(\d)"', dom)[1])
    assert columns == {500: 1, 1440: 3}


def test_hostile_text_is_shown_and_does_nothing(tmp_path):
    tables = frames.tables(first=frames.HOSTILE, words=frames.HOSTILE)
    tables["abilities"] = tables["abilities"].with_columns(ability=pl.col("ability") + frames.HOSTILE)
    page = written(tmp_path, pages.render(tables, frames.run_info(frames.HOSTILE)))
    dom, console = open_page(page, tmp_path, "--window-size=1440,3000")
    figures = Figures(dom)
    assert console == []
    assert figures.title.startswith("What editing facts did")
    assert "img" not in figures.tags
    assert all(figure["drawn"] == "yes" for figure in figures.figures.values())
    legend = " ".join(figures.figures["abilities"]["text"])
    assert "</script><script>" in legend


def test_the_hostile_text_would_act_if_it_were_not_escaped(tmp_path):
    page = written(tmp_path, f"<!doctype html><title>safe</title><script>'{frames.SCRIPT_END}</script>")
    dom, console = open_page(page, tmp_path)
    assert Figures(dom).title == "pwned"
    assert console  # and a fault in a script is seen
