"""Figures as parts of a page: sizes, colours, names of their own, and files drawn once."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from keygap.reporting import drawing, figures


def drawn(size: float = 9, colour: str = "#000000") -> Figure:
    figure, grid = figures.canvas(1, 1, 4, 2)
    grid[0, 0].plot([0, 1], [0, 1], color=colour)
    grid[0, 0].set_title("<b>&amp;", fontsize=size)
    return figure


@pytest.fixture
def style():
    with mpl.rc_context(figures.STYLE):
        yield


def part(figure: Figure, root: Path, alt: str = "what it shows") -> str:
    return drawing.shown(drawing.Drawn("one", figure, alt, "a caption"), root, "here")["drawing"]


@pytest.mark.usefixtures("style")
def test_the_smallest_text_is_eleven_pixels_however_narrow_the_window(tmp_path):
    for size, least in ((9, 352), (4.5, 704)):  # of 288 points: 11 / 9 and 11 / 4.5 pixels each
        svg = part(drawn(size), tmp_path)
        assert re.search(r"min-width: (\d+)px", svg)[1] == str(least)


@pytest.mark.usefixtures("style")
def test_text_is_text_and_follows_the_page(tmp_path):
    svg = part(drawn(), tmp_path, '"quoted" <alt>')
    assert "&lt;b&gt;&amp;amp;" in svg
    assert 'aria-label="&quot;quoted&quot; &lt;alt&gt;"' in svg
    assert "font-family" not in svg
    assert "#000000" not in svg
    assert "#ffffff" not in svg.lower()
    assert svg.count("var(--ink)") > 3
    assert set(re.findall(r'\bid="([^"]{5})', svg)) == {"here-"}
    assert {name[:6] for name in re.findall(r"url\(([^)]*)\)", svg)} <= {"#here-"}


@pytest.mark.usefixtures("style")
def test_dark_colours_have_another_shade_in_the_dark(tmp_path):
    svg = part(drawn(colour="#332288"), tmp_path)
    assert "stroke: var(--c332288)" in svg
    light, dark = drawing.shades(dark=False), drawing.shades(dark=True)
    assert "--c332288: #332288" in light
    assert "--c332288: #332288" not in dark
    assert light.count("--c") == dark.count("--c")


@pytest.mark.usefixtures("style", "in_all_formats")
def test_other_formats_are_drawn_where_the_figure_changed(tmp_path):
    folder = tmp_path / "figures"
    svg = drawing.saved(drawn(), tmp_path, "one")
    assert (folder / "one.svg").read_text() == svg
    assert (folder / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "one.pdf").read_bytes().startswith(b"%PDF")
    (folder / "one.png").write_bytes(b"kept")
    assert drawing.saved(drawn(), tmp_path, "one") == svg
    assert (folder / "one.png").read_bytes() == b"kept"
    assert drawing.saved(drawn(colour="#D55E00"), tmp_path, "one") != svg
    assert (folder / "one.png").read_bytes().startswith(b"\x89PNG")
    (folder / "one.pdf").unlink()
    drawing.saved(drawn(colour="#D55E00"), tmp_path, "one")
    assert (folder / "one.pdf").read_bytes().startswith(b"%PDF")
