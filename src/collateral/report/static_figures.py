"""A figure at the size of a paper's column: SVG in inches, PNG at 300 dots per inch."""

import copy
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import vl_convert

from collateral.report.render import Spec, find_panels

COLUMN_INCHES, PAGE_INCHES = 3.4, 7.0  # of a two-column paper: one panel, several panels
LEAST = 0.8  # to which letters may shrink
DOTS_PER_INCH = 300
PIXELS_PER_INCH = 96  # a CSS pixel, which is what the chart's sizes count
NARROWEST, SHORTEST = 112, 112  # pixels of a panel's plot: below that, its axis labels collide
SMALLEST_MAP = 44
LETTER = 0.56  # mean width of a letter, in font sizes


def draw_svg_and_png(spec: Spec) -> tuple[str, bytes]:
    """Return the chart drawn for a column (one panel) or a page (several) of a paper, 3.4 or 7 inches wide."""
    asked = COLUMN_INCHES if len(find_panels(spec)) == 1 else PAGE_INCHES
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    drawn = str(
        vl_convert.vegalite_to_svg(fit_to_width(spec, round(asked * PIXELS_PER_INCH)), vl_version=version)
    )
    width, height = (float(number) for number in _size(drawn))
    own = width / PIXELS_PER_INCH
    # A chart that cannot be fitted, as a matrix of words, keeps its own size between a column's and a page's width.
    inches = asked if LEAST < asked / own < 1 / LEAST else round(min(max(own, COLUMN_INCHES), PAGE_INCHES), 3)
    png = vl_convert.svg_to_png(
        drawn, scale=inches * 72 / width, ppi=DOTS_PER_INCH
    )  # scale 1: 72 pixels an inch
    sized = re.sub(
        r'width="[\d.]+" height="[\d.]+"',
        f'width="{inches:g}in" height="{inches * height / width:.3f}in"',
        drawn,
        count=1,
    )
    return sized, bytes(png)


def _size(drawn: str) -> tuple[str, str]:
    found = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', drawn)
    assert found is not None, "vl-convert writes the size of every SVG"
    return found[1], found[2]


def fit_to_width(spec: Spec, width: int) -> Spec:
    """Return the chart with panels made narrower, and in fewer columns if need be, so that they take `width` pixels.

    Letters keep their size; titles are broken into lines. Maps of blocks, which have no labels along their axes, may
    shrink further, so that many of them stay on one page.
    """
    spec = copy.deepcopy(spec)
    panels = find_panels(spec)
    plots = [float(panel.get("width") or 0) for panel in panels]
    widest = max(plots)
    if widest <= 0:
        return spec
    axes = max(0.0, float(spec.get("usermeta", {}).get("panel", widest + 74)) - widest)
    spacing = float(spec.get("spacing", 20))
    least = SMALLEST_MAP if all(_mark(panel) == "rect" for panel in panels) else NARROWEST
    columns = _columns(
        spec, len(panels), lambda count: _plot(width, count, axes, spacing) / min(least, widest)
    )
    plot = _plot(width, columns, axes, spacing)
    for panel, own in zip(panels, plots, strict=True):
        if own:
            panel["width"] = own * plot / widest
            shortest = 0 if _mark(panel) == "rect" else SHORTEST
            panel["height"] = max(panel["height"] * plot / widest, shortest)
            _break_y_title(panel, panel["height"])
        _break_title(panel, panel.get("width", plot) + axes / 2)
    _level(panels)
    if "columns" in spec:
        spec["columns"] = columns
    _break_title(spec, width)
    legend = spec.setdefault("config", {}).setdefault("legend", {})
    legend["columns"] = max(1, int(width / (_longest_name(spec) * LETTER * 11 + 34)))
    return spec


def _columns(spec: Spec, panels: int, room: Callable[[int], float]) -> int:
    """Return how many panels stand side by side: as on the page if there is room (>= 1), more if they are many."""
    columns = min(int(spec.get("columns", panels)), panels)
    while columns > 1 and room(columns) < 1:
        columns -= 1
    while panels > 4 * columns and room(columns + 1) >= 1:
        columns += 1
    return columns


def _mark(panel: Spec) -> str:
    mark = panel.get("mark", "")
    return str(mark.get("type", "")) if isinstance(mark, dict) else str(mark)


def _plot(width: float, columns: int, axes: float, spacing: float) -> float:
    return (width - columns * axes - (columns - 1) * spacing) / columns


def _break_title(part: Spec, width: float) -> None:
    """Break the part's title and subtitle, in place, into lines of at most `width` pixels."""
    title = part.get("title")
    if title is None:
        return
    if not isinstance(title, dict):
        title = part["title"] = {"text": title}
    title["limit"] = math.ceil(1.4 * width)  # the breaks decide; letters are only estimated
    for key, size in (("text", title.get("fontSize", 13)), ("subtitle", title.get("subtitleFontSize", 11))):
        if title.get(key):
            title[key] = _lines(title[key], max(12, int(width / (LETTER * size))))


def _break_y_title(panel: Spec, height: float) -> None:
    for layer in panel.get("layer", [panel]):
        y = layer.get("encoding", {}).get("y", {})
        if isinstance(y.get("title"), str):
            y["title"] = _lines(y["title"], max(12, int(height / (LETTER * 11))))


def _level(panels: Sequence[Spec]) -> None:
    """Give all panels as many lines of subtitle, so that the titles of a row stand level."""
    titled = [panel["title"] for panel in panels if isinstance(panel.get("title"), dict)]
    most = max((len(title.get("subtitle") or []) for title in titled), default=0)
    for title in titled:
        lines = list(title.get("subtitle") or [])
        if most:
            title["subtitle"] = [*lines, *[""] * (most - len(lines))]


def _lines(text: Any, letters: int) -> list[str]:
    lines = text if isinstance(text, list) else [text]
    return [part for line in lines for part in textwrap.wrap(str(line), letters) or [""]]


def _longest_name(spec: Spec) -> int:
    """Return the letters of the longest entry of the chart's legends."""

    def names(node: Any) -> list[str]:
        if isinstance(node, list):
            return [name for child in node for name in names(child)]
        if not isinstance(node, dict):
            return []
        legend = node.get("legend")
        own = legend.get("values", []) if isinstance(legend, dict) else []
        return [*map(str, own), *(name for child in node.values() for name in names(child))]

    return max(map(len, names({key: value for key, value in spec.items() if key != "datasets"})), default=12)
