"""The explorer as a part of a page: data, scripts, style, and what the page's policy must allow."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from keygap.contrasts.labels import SINK_SHARE
from keygap.reporting.explorer.data import as_json, data_of
from keygap.reporting.run import Run

# Of D3 (https://d3js.org), as published on npm; a module stands after those that it needs.
LIBRARY = (
    *("dispatch", "selection", "drag", "color", "interpolate", "timer", "ease", "transition"),
    *("zoom", "quadtree", "polygon"),
)
OWN = ("data", "colour", "raster", "plot", "card", "chosen", "filter", "small", "main")
RANGES = {
    "position": "position",
    "row": "row of the patch",
    "column": "column of the patch",
    "attention": "attention received",
}
COLOURS = {
    "modality": "modality",
    "role": "role",
    "sample": "sample",
    **RANGES,
    "sink": "attention sink",
}


@dataclass(frozen=True)
class Explorer:
    """What the template ``explorer.html`` and the page's head need.

    Attributes:
        data: JSON for an element of type ``application/json``.
        scripts: the library, then the explorer's own.
        style: its style sheet.
    """

    data: Markup
    scripts: tuple[Markup, ...]
    style: Markup
    ranges: tuple[tuple[str, str], ...] = tuple(RANGES.items())
    colours: tuple[tuple[str, str], ...] = tuple(COLOURS.items())

    @property
    def policy(self) -> Markup:
        """The directive of the Content Security Policy that allows these scripts and no other."""
        return Markup("script-src " + " ".join(map(hash_of, self.scripts)))


def explorer(runs: Sequence[Run]) -> Explorer | None:
    """The explorer of some runs; None if none of them was projected."""
    data = data_of(runs)
    if data is None:
        return None
    return Explorer(
        Markup(as_json({**data, "sink_share": SINK_SHARE})),
        scripts_with(_read("js/start.js")),
        style(),
    )


def hash_of(script: str) -> str:
    """The source expression that allows an inline script in a Content Security Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def scripts_with(start: str) -> tuple[Markup, ...]:
    """The library, and the explorer's own scripts with the one that starts it.

    Args:
        start: the script that starts it.
    """
    licence = _read("third_party/LICENSE")  # each page is a copy that must have it
    library = [f"/*\n{licence}*/", *(_read(f"third_party/d3-{name}.min.js") for name in LIBRARY)]
    own = "\n".join([*(_read(f"js/{name}.js") for name in OWN), start])
    # A function of its own, so that nothing of the page can be named as its parts are.
    return _script("\n".join(library)), _script(f'"use strict";\n(() => {{\n{own}}})();\n')


def _script(text: str) -> Markup:
    """A text between the tags of a script, which it must not end itself."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script of the explorer ends the element that it is in")
    return Markup(text)


@cache
def style() -> Markup:
    """The explorer's style sheet."""
    return Markup(_read("explorer.css"))


def _read(name: str) -> str:
    return (files("keygap.reporting.explorer") / name).read_text(encoding="utf-8")
