"""Saving a figure as PNG, SVG and PDF, and making it a part of a page.

In the page a figure is the SVG itself: its text is text, it follows the page's colours in the dark,
it prints sharply, and what it draws can have a title that shows when pointed at. Its smallest text
has a least size; a figure that is too wide for a window at this size is scrolled and not shrunk.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from keygap.store import write_bytes
from keygap.store.run import FIGURES

DPI = 150
PRINT_DPI = 300  # of those parts of a drawing that are pixels
LEAST_TEXT = 11  # pixels of the smallest text of a drawing in a page
COMFORTABLE = 4 / 3 * 1.1  # pixels of a point in a page where there is room
# Without the date and the name of a program in it, equal tables give equal files.
_SVG: dict[str, Any] = {"format": "svg", "dpi": PRINT_DPI, "metadata": {"Date": None}}
_OTHERS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": None}},
    "pdf": {"dpi": PRINT_DPI, "metadata": {"CreationDate": None}},
}
_INLINE = (  # what a drawing on its own has and a page does not need
    (re.compile(r"^.*?(?=<svg\b)", re.DOTALL), ""),
    (re.compile(r"<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r' target="_blank"'), ""),
    # The page says which font, and that lines are round.
    (re.compile(r"<style type=\"text/css\">.*?</style>", re.DOTALL), ""),
    (re.compile(r" font-family: [^;\"]*;?"), ""),
    (re.compile(r' transform="rotate\(-0 [^)]*\)"'), ""),
    (re.compile(r"\n\s*"), "\n"),
)
_NAMES = re.compile(r'(\bid="|\bxlink:href="#(?!row-)|\burl\(#)(?=[^"()]+[")])')
_PATH = re.compile(r'(?<= d=")[^"]*')
_LONG = re.compile(r"\d+\.\d{3,}")
_SIZES = re.compile(r"\bfont(?:-size)?: (?:[a-z]+ |\d+ )*?([\d.]+)px")
_BOX = re.compile(r'\bwidth="([\d.]+)pt"')
# Black and white are the page's ink and paper, so that a drawing follows its colours.
_INK = re.compile(r"(?<=: )#000000\b")
_PAPER = re.compile(r"(?<=: )#ffffff\b", re.IGNORECASE)
# In the dark these would be too near to the paper, and yellow is so in the light.
_SHADES = {  # colour of a figure: of the page in the light, in the dark
    "#f0e442": ("#a89b00", "#f0e442"),
    "#0072b2": ("#0072b2", "#4aa3df"),
    "#d55e00": ("#d55e00", "#f07c26"),
    "#555555": ("#555555", "#b4b4c0"),
    "#222222": ("#222222", "#e0e0e8"),
    "#333333": ("#333333", "#d0d0da"),
    "#bbbbbb": ("#bbbbbb", "#55555f"),
    "#cccccc": ("#cccccc", "#44444e"),
    "#777777": ("#777777", "#9a9aa6"),
    "#332288": ("#332288", "#8f86e0"),
    "#882255": ("#882255", "#e388b6"),
    "#6f4e37": ("#6f4e37", "#b98d6f"),
}
_SHADE = re.compile(f"(?<=: )(?:{'|'.join(_SHADES)})\\b")


@dataclass(frozen=True)
class Drawn:
    """A figure of a report.

    Attributes:
        name: of its files, without a suffix.
        figure: the figure.
        alt: the finding, in a sentence with its numbers, for readers who do not see it.
        caption: what is drawn, its unit, intervals and samples, and how to read it.
        titles: what groups of the drawing show when pointed at, by their names.
    """

    name: str
    figure: Figure
    alt: str
    caption: str
    titles: Mapping[str, str] = field(default_factory=dict)


def shown(drawn: Drawn, root: Path, place: str) -> dict[str, str]:
    """Save a figure, and make it a part of a page.

    Args:
        drawn: the figure.
        root: the run or study folder.
        place: of the figure in the page, another for each.

    Returns:
        ``drawing``, as HTML, and ``caption``, as text.
    """
    svg = saved(drawn.figure, root, drawn.name)
    return {
        "drawing": inline(svg, drawn.alt, f"{place}-", drawn.titles),
        "caption": drawn.caption,
    }


def saved(figure: Figure, root: Path, name: str) -> str:
    """Save a figure as PNG, SVG and PDF in the folder ``figures`` of a run or a study.

    The SVG has all that is drawn and the version of matplotlib. Where an equal one is there, so are
    the other formats of it, which take most of the time: they are drawn only where it differs.

    Args:
        figure: the figure.
        root: the run or study folder.
        name: of the files, without a suffix.

    Returns:
        The text of the SVG.
    """
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)  # as expensive as a drawing: once for all formats
        figure.set_layout_engine("none")
    folder = root / FIGURES
    svg = _drawn(figure, **_SVG)
    path = folder / f"{name}.svg"
    others = {kind: folder / f"{name}.{kind}" for kind in _OTHERS}
    known = all(other.is_file() for other in (path, *others.values())) and path.read_bytes() == svg
    if not known:
        for kind, other in others.items():
            write_bytes(other, _drawn(figure, format=kind, **_OTHERS[kind]))
        write_bytes(path, svg)  # last: it vouches for the others
    return svg.decode()


def _drawn(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def inline(drawing: str, alt: str, prefix: str, titles: Mapping[str, str] | None = None) -> str:
    """An SVG file as a part of an HTML page, whose links lead to rows of the page.

    Args:
        drawing: an SVG that matplotlib wrote, so that all text in it is escaped.
        alt: what it shows.
        prefix: of every name in it, so that no two drawings of a page share one.
        titles: what groups of the drawing show when pointed at, by their names.
    """
    for pattern, other in _INLINE:
        drawing = pattern.sub(other, drawing)
    # a hundredth of a point is enough
    drawing = _PATH.sub(lambda path: _LONG.sub(lambda x: f"{float(x[0]):.2f}", path[0]), drawing)
    for name, title in (titles or {}).items():
        group = f'<g id="{name}">'
        drawing = drawing.replace(group, f"{group}<title>{escape(title)}</title>", 1)
    drawing = _NAMES.sub(rf"\g<1>{prefix}", drawing)
    drawing = _PAPER.sub("var(--paper)", _INK.sub("var(--ink)", drawing))
    drawing = _SHADE.sub(lambda match: f"var(--c{match[0][1:]})", drawing)
    # An image has no parts to a screen reader, and links must remain.
    role = "group" if "<a " in drawing else "img"
    head = f'<svg role="{role}" aria-label="{escape(alt)}" style="{_sizes(drawing)}" '
    return drawing.replace("<svg ", head, 1)


def shades(dark: bool) -> str:
    """The colours of drawings as variables of a style sheet."""
    return "; ".join(f"--c{name[1:]}: {pair[dark]}" for name, pair in _SHADES.items())


def _sizes(drawing: str) -> str:
    """How wide a drawing is where there is room, and the least at which all text can be read."""
    box = _BOX.search(drawing)
    if box is None:
        return ""
    points = float(box[1])
    least = min((float(size) for size in _SIZES.findall(drawing)), default=LEAST_TEXT)
    narrow = math.ceil(points * LEAST_TEXT / least)
    return f"width: {points * COMFORTABLE:.0f}px; min-width: {narrow}px"
