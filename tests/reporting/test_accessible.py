"""The report and the page of ``keygap view`` by the rules of axe-core, and the text of figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keygap as kg

from .explored import BROWSER
from .viewed import served

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH")
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
GRAVE = ("serious", "critical")
OPEN = "() => document.querySelectorAll('details').forEach((one) => { one.open = true; })"
# Of every text of every drawing: its size on the screen, and the contrast of its colour.
TEXTS = """() => [...document.querySelectorAll('.drawing svg')].flatMap((svg) => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map((text) => {
    const style = getComputedStyle(text);
    const [r, g, b] = style.fill.match(/[\\d.]+/g).map(Number);
    return [parseFloat(style.fontSize) * scale, r, g, b];
  });
})"""


@contextmanager
def unfolded(browser: Any, address: str, ready: str) -> Iterator[Any]:
    """A page with everything open. Axe is a script that the page's policy would not let run."""
    where = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 1000})
    page = where.new_page()
    page.goto(address)
    page.wait_for_selector(ready)
    page.evaluate(OPEN)
    yield page
    where.close()


def grave(
    page: Any, width: int, scheme: str, only: tuple[str, ...] = (), colours: bool = True
) -> list[tuple[str, list[str]]]:
    """What axe finds that is serious or critical: the rule, and where.

    Args:
        page: in a browser.
        width: of its window.
        scheme: of its colours.
        only: rules to try; all if none is given.
        colours: whether contrasts of colours are computed, which takes most of the time.
    """
    page.set_viewport_size({"width": width, "height": 1000})
    page.emulate_media(color_scheme=scheme)
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if only:
        options["runOnly"] = list(only)
    if not colours:
        options["rules"] = {"color-contrast": {"enabled": False}}
    found = axe.Axe().run(page, options=options).response["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]][:5])
        for one in found
        if one["impact"] in GRAVE
    ]


@pytest.fixture(scope="module")
def report(browser: Any, whole_page: Path) -> Iterator[Any]:
    with unfolded(browser, whole_page.as_uri(), "#explorer-view:not([hidden])") as page:
        yield page


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (400, "dark"),
        pytest.param(400, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_grave_in_the_report(report: Any, width: int, scheme: str) -> None:
    """Colours do not depend on the width: their contrasts are computed at one of each scheme."""
    once = (width, scheme) in ((400, "dark"), (1280, "light"))
    assert grave(report, width, scheme, colours=once) == []


def test_axe_finds_nothing_grave_in_the_page_of_view(browser: Any, explored: Path) -> None:
    with (
        served(kg.Store(explored)) as client,
        unfolded(browser, client.server.url, '[data-part="count"]:not(:empty)') as page,
    ):
        page.wait_for_function(
            "() => document.querySelector('[data-part=\"count\"]').textContent.includes('tokens')"
        )
        for width in WIDTHS:
            for scheme in SCHEMES:
                assert grave(page, width, scheme) == []


def test_axe_would_find_an_image_without_a_text(report: Any) -> None:
    find = "document.querySelector('.drawing svg')"
    words = report.evaluate(f"{find}.getAttribute('aria-label')")
    report.evaluate(f"{find}.removeAttribute('aria-label')")
    assert "svg-img-alt" in [
        rule for rule, _ in grave(report, 1280, "light", only=("svg-img-alt",))
    ]
    report.evaluate(f"(words) => {find}.setAttribute('aria-label', words)", words)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("scheme", "ends"), [("light", (0, 110)), ("dark", (145, 255))])
def test_texts_of_figures_can_be_read(report: Any, width: int, scheme: str, ends: Any) -> None:
    """At least 11 pixels, dark in the light and light in the dark."""
    report.set_viewport_size({"width": width, "height": 1000})
    report.emulate_media(color_scheme=scheme)
    found = np.asarray(report.evaluate(TEXTS))
    assert len(found) > 500
    assert found[:, 0].min() >= 10.99
    brightness = found[:, 1:] @ [0.299, 0.587, 0.114]
    assert brightness.min() >= ends[0]
    assert brightness.max() <= ends[1]
    assert report.evaluate("document.documentElement.scrollWidth") <= width
