"""Figures at the size of a paper's column: inches, dots, and letters that stay legible."""

import re
import struct

import polars as pl
import pytest

import inferred_frames as inferred
import report_frames as frames
from collateral.report import write as reportfiles
from collateral.report.render import Drawing, draw_figures, find_panels
from collateral.report.static_figures import draw_svg_and_png, fit_to_width

DRAWN = {one.name: one for one in draw_figures(frames.tables() | inferred.tables())}


def only(drawing: Drawing, count: int) -> dict:
    """The drawing with its first panels alone, and its parameters for these."""
    concat = drawing.spec["concat"][:count]
    views = {layer.get("name") for part in concat for layer in part["layer"]}
    params = [
        {**param, "views": [view for view in param["views"] if view in views]} if "views" in param else param
        for param in drawing.spec["params"]
    ]
    return {**drawing.spec, "concat": concat, "params": params}


@pytest.mark.parametrize(("panels", "inches"), [(1, 3.4), (3, 7.0)])
def test_one_panel_is_a_column_wide_and_several_are_a_page(panels, inches):
    svg, png = draw_svg_and_png(only(DRAWN["abilities"], panels))
    assert f'width="{inches:g}in"' in svg[:300]
    assert struct.unpack(">I", png[16:20])[0] == pytest.approx(300 * inches, abs=1)
    dots_per_metre = struct.unpack(">I", png[png.index(b"pHYs") + 4 :][:4])[0]
    assert dots_per_metre == pytest.approx(300 / 0.0254, abs=1)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_letters_keep_their_size(name):
    """The drawing is planned at its final width, so that it is hardly scaled: 11 pixels stay about 8 points."""
    svg, _ = draw_svg_and_png(DRAWN[name].spec)
    inches, box = (float(n) for n in re.search(r'width="([\d.]+)in".*?viewBox="0 0 ([\d.]+)', svg).groups())
    assert 0.8 < inches * 96 / box < 1.25


def test_long_titles_are_broken_and_panels_stay_level():
    spec = only(DRAWN["abilities"], 3)
    spec["concat"][0]["title"] = {
        "text": "a very long name of an ability that has many words",
        "subtitle": ["short"],
    }
    panels = find_panels(fit_to_width(spec, 672))
    assert len(panels[0]["title"]["text"]) > 1
    assert len({len(panel["title"]["subtitle"]) for panel in panels}) == 1
    assert (
        DRAWN["abilities"].spec["concat"][1]["width"] > panels[1]["width"]
    )  # the page's own chart is as it was


def test_the_files_of_a_figure_hold_data_drawing_and_caption(tmp_path):
    one = DRAWN["shares"]
    reportfiles.write_figure(one, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".png", ".rst", ".svg"]
    assert pl.read_csv(tmp_path / "shares.csv").height == one.points.height
    caption = (tmp_path / "shares.rst").read_text().rstrip("\n")
    assert re.sub(r"\\(.)", r"\1", caption) == one.caption
    assert r"\|ΔW\|" in caption  # else reStructuredText takes |…| for a substitution
