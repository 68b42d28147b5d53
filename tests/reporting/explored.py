"""Runs that tests of the explorer look at, and the page of each in a browser.

A page is only handed on to be used: whatever it says on the console or asks of the network fails
the test that opened it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import Sample, image_then_question
from keygap.models.load import wrap
from keygap.reporting import drawing
from made import bench_of
from models.zoo import BY_FAMILY

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
WORDS = ("circle", "square", "red", "blue", "left", "right")
PLOT = 'canvas[data-part="plot"]'


def pictured(number: int, size: tuple[int, int] = (64, 48)) -> Sample:
    """A sample whose image is its own noise."""
    width, height = size
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    question = f"is the {WORDS[number % 6]} {WORDS[number % 5]} thing number {number}?"
    image = Image.fromarray(noise)
    return Sample(f"s{number:02}", (image,), question, image_then_question(question), "yes")


def looked_at(
    family: str,
    folder: Path,
    layers: Sequence[int] = (1,),
    sites: Sequence[str] = ("key",),
    **options: Any,
) -> Path:
    """A measured and projected run of a tiny model of a family."""
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    samples = [pictured(number) for number in range(24)]
    store = kg.extract(vlm, bench_of(samples), folder, layers=layers, sites=sites, **options)
    computed(store, tokens=100, perplexity=8)
    return folder


def computed(store: kg.Store, **options: Any) -> None:
    """Compute what a report needs and the tests do not look at in few steps, and the projection."""
    few: dict[str, Any] = {"contrasts": ["image_text"], "n_permutations": 9, "n_bootstraps": 9}
    site, layer = store.site_layers()[-1]
    kg.measure(store, sites=[site], layers=[layer], **few).save(store.root)
    if options:
        kg.project(store, **options).save(store.root)


def reported(*folders: Path, out: Path | None = None) -> Path:
    """The page of some runs, without the figures, whose drawing takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "saved", lambda figure, root, name: "")
        return kg.report(*folders, out=out)


@contextmanager
def opened(browser: Any, path: Path, **context: Any) -> Iterator[Any]:
    """A page in the browser, whose explorer has started.

    Raises:
        AssertionError: on leaving, if the page said or asked for anything.
    """
    size = {"width": 1280, "height": 1000}
    where = browser.new_context(**{"viewport": size, "accept_downloads": True, **context})
    page = where.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url[:200]))
    page.goto(path.as_uri())
    page.wait_for_selector("#explorer-view:not([hidden])")
    yield page
    page.wait_for_timeout(50)
    where.close()
    allowed = (path.as_uri(), "data:image/", "blob:")  # blob: a file that the page itself made
    assert [text for text in heard if not text.startswith(allowed)] == []


class Looker:
    """What a person does with the explorer, and what they then see."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.canvas = page.locator(PLOT)

    def text(self, part: str) -> str:
        return self.page.inner_text(f'[data-part="{part}"]')

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f'#explorer-view select[name="{name}"]', value)

    def fill(self, name: str, value: str) -> None:
        field = self.page.locator(f'#explorer-view input[name="{name}"]')
        if not field.is_visible():
            self.page.click("text=More filters")
        field.fill(value)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def facts(self) -> dict[str, str]:
        """The card: its title and its list."""
        card = self.page.locator('[data-part="card"]')
        names, values = card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts()
        return {"title": card.locator("h3").inner_text(), **dict(zip(names, values, strict=True))}

    def counts(self) -> tuple[int, int]:
        """How many tokens are shown, and how many selected."""
        words = self.text("count").replace(",", "").split()
        return int(words[0]), int(words[words.index("selected") - 1])

    def screen(self, frame: pd.DataFrame, columns: tuple[str, str] = ("x", "y")) -> np.ndarray:
        """Where the points of a site and layer are in the window: as large as fits, y upwards."""
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        points = frame[list(columns)].to_numpy()
        low, high = points.min(0), points.max(0)
        side = min(box["width"], box["height"]) - 28
        scaled = (points - (low + high) / 2) / (high - low).max() * side
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        return np.array(middle) + scaled * [1, -1]

    def exported(self) -> pd.DataFrame:
        """The file that the page hands out."""
        with self.page.expect_download() as download:
            self.page.click('[data-part="export"]')
        return pd.read_csv(
            download.value.path(),
            engine="python",  # pandas 2.2's own parser ends a field at a NUL
            keep_default_na=False,
            dtype={"token": str, "role": str},
        )
