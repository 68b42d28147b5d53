"""Saving a figure as PNG, SVG and PDF, and making it a part of a page.

In the page a figure is the SVG itself: its text is text, it follows the page's colours in the dark,
it prints sharply, and what it draws can have a title that shows when pointed at.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from keygap.store import write_bytes
from keygap.store.run import FIGURES

DPI = 150
PRINT_DPI = 300  # of those parts of a drawing that are pixels
# Without the date and the name of a program in it, equal tables give equal files.
_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": None}},
    "svg": {"dpi": PRINT_DPI, "metadata": {"Date": None}},
    "pdf": {"dpi": PRINT_DPI, "metadata": {"CreationDate": None}},
}
_INLINE = (  # what a drawing on its own has and a page does not need
    (re.compile(r"^.*?(?=<svg\b)", re.DOTALL), ""),
    (re.compile(r"<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r' target="_blank"'), ""),
)
_NAMES = re.compile(r'(\bid="|\bxlink:href="#(?!row-)|\burl\(#)(?=[^"()]+[")])')
# Black and white are the page's ink and paper, so that a drawing follows its colours.
_INK = re.compile(r"(?<=: )#000000\b")
_PAPER = re.compile(r"(?<=: )#ffffff\b", re.IGNORECASE)


def saved(figure: Figure, root: Path, name: str) -> dict[str, str]:
    """Save a figure as PNG, SVG and PDF in the folder ``figures`` of a run or a study.

    Args:
        figure: the figure.
        root: the run or study folder.
        name: of the files, without a suffix.

    Returns:
        ``name``, ``data`` (the PNG as a data URL) and ``svg`` (the file's text).
    """
    found = {}
    for kind, options in _FORMATS.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        found[kind] = buffer.getvalue()
        write_bytes(root / FIGURES / f"{name}.{kind}", found[kind])
    data = base64.b64encode(found["png"]).decode()
    return {"name": name, "data": f"data:image/png;base64,{data}", "svg": found["svg"].decode()}


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
    for name, title in (titles or {}).items():
        group = f'<g id="{name}">'
        drawing = drawing.replace(group, f"{group}<title>{escape(title)}</title>", 1)
    drawing = _NAMES.sub(rf"\g<1>{prefix}", drawing)
    drawing = _PAPER.sub("var(--paper)", _INK.sub("var(--ink)", drawing))
    return drawing.replace("<svg ", f'<svg role="group" aria-label="{escape(alt)}" ', 1)
