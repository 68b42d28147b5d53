"""The page of ``keygap view`` in a real browser: it asks its own server and nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest

from keygap.store import Store
from made import made_vectors
from store.made import run_of

from .explored import BROWSER, Looker
from .test_explorer_form import HOSTILE
from .test_view import frame_of
from .viewed import Client, large_store, served

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH")


@pytest.fixture(scope="module")
def client(explored):
    with served(Store(explored)) as found:
        yield found


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    with served(large_store(tmp_path_factory.mktemp("large") / "run", 120, 10)) as found:
        yield found


@contextmanager
def visited(browser: Any, client: Client, **context: Any) -> Iterator[Looker]:
    """The page of a server, once it shows tokens. What it says or asks elsewhere fails the test."""
    where = browser.new_context(viewport={"width": 1280, "height": 1000}, **context)
    page = where.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url[:200]))
    page.goto(client.server.url)
    looker = Looker(page)
    until(looker, "tokens shown")
    yield looker
    page.wait_for_timeout(50)
    where.close()
    allowed = (client.server.url, "data:image/", "data:,", "blob:")
    assert [text for text in heard if not text.startswith(allowed)] == []


def until(looker: Looker, text: str | re.Pattern[str], part: str = "count") -> None:
    looker.page.locator(f'[data-part="{part}"]', has_text=text).wait_for()


def alone(points: np.ndarray, rows: pd.Index) -> int:
    """The row, among some, that is farthest from its neighbour on the screen."""
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag([np.inf] * len(points))
    return int(rows[int(gaps.min(1)[rows].argmax())])


def test_pointing_at_a_word_and_at_a_patch_shows_them(browser, client, explored):
    number = Store(explored).site_layers().index(("k_proj", 1))
    frame = frame_of(client.ask("points", place=number))  # prepares the layer too
    with visited(browser, client) as looker:
        with looker.page.expect_response(lambda one: f"place={number}" in one.url) as response:
            looker.choose("place", str(number))
        assert response.value.finished() is None
        looker.page.wait_for_timeout(200)
        points = looker.screen(frame)
        for modality in ("text", "image"):
            row = alone(points, frame.index[frame["modality"] == modality])
            looker.page.mouse.move(*points[row])
            token = frame.loc[row]
            facts = looker.facts()
            assert facts["sample"] == token["sample_id"]
            assert facts["position"] == str(token["position"])
            assert facts["attention"].startswith(f"{token['attention']:.2f} × the even share")
            looker.page.locator(".pictures img").first.wait_for()
            marked = looker.page.locator(".prompt mark").inner_text()
            if modality == "text":
                assert marked == token["token"].replace("\u0120", " ").replace("\u2581", " ")
            else:
                assert facts["patch"] == f"row {token['row']}, column {token['column']} (from 0)"
                assert looker.page.locator(".patch:not(.other)").count() == 1
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        looker.page.click("text=The same token elsewhere")
        places = len(Store(explored).site_layers())
        found = looker.page.locator(".elsewhere li", has_text="even share")
        sync_api.expect(found).to_have_count(places, timeout=60_000)  # the server reads every layer


def test_other_layers_and_tsne_are_asked_for_and_the_token_stays(browser, client, explored):
    places = Store(explored).site_layers()
    frame = pd.read_parquet(explored / "projection.parquet")
    with visited(browser, client) as looker:
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        first = looker.facts()
        looker.choose("place", "2")
        site, layer = places[2]
        attention = Store(explored).vectors(site, layer).labels["attention"].iloc[0]
        until(looker, f"{attention:.2f} × the even share", "card")
        assert looker.facts()["sample"] == first["sample"]
        looker.choose("method", "tsne")
        drawn = len(frame[(frame["site"] == site) & (frame["layer"] == layer)])
        until(looker, f"{drawn} of {drawn} tokens shown")
        assert looker.text("method-name") == "t-SNE"


def test_keys_do_no_harm_while_the_points_of_another_method_are_still_to_come(
    browser, client, explored
):
    frame = pd.read_parquet(explored / "projection.parquet")
    site, layer = Store(explored).site_layers()[0]
    drawn = frame[(frame["site"] == site) & (frame["layer"] == layer)]
    held: list[Any] = []
    let_go = False

    def hold(route: Any) -> None:
        route.continue_() if let_go else held.append(route)

    with visited(browser, client) as looker:
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        looker.page.route("**/api/points*", hold)
        with looker.page.expect_request("**/api/points*"):
            looker.choose("method", "tsne")
        looker.page.focus('[data-part="plot"]')
        looker.press("ArrowRight", "+", "Shift+ArrowRight", "Home")
        let_go = True
        for route in held:
            route.continue_()
        until(looker, "t-SNE", "method-name")
        looker.press("Home")
        facts = looker.facts()
        assert (facts["sample"], int(facts["position"])) in set(
            zip(drawn["sample_id"], drawn["position"], strict=True)
        )


def test_a_search_finds_words_of_the_whole_store(browser, asked):
    words = asked.ask("words", word="word31")
    with visited(browser, asked) as looker:
        assert looker.counts()[0] == 20_000
        assert "60,000 matching tokens are in view, too many to draw" in looker.text("count")
        looker.page.focus("input[name=word]")
        looker.page.keyboard.type("word31")
        until(looker, f"{words['tokens']} match")
        assert looker.counts()[0] == words["tokens"] < 15_000
        looker.page.locator("datalist option").first.wait_for(state="attached")
        options = looker.page.locator("datalist option")
        shown = [one.get_attribute("value") for one in options.all()]
        assert shown == [text for text, _ in words["most"]]
        looker.press("Enter")
        assert looker.counts() == (words["tokens"], words["tokens"])


def test_zooming_in_asks_for_more_of_what_is_there(browser, asked):
    with visited(browser, asked) as looker:
        looker.page.focus('[data-part="plot"]')
        looker.press("ArrowRight")
        before = looker.facts()
        looker.press(*"++++++")
        until(looker, re.compile(r"^(1?\d,)?\d{1,3} of 60,000 tokens shown"))  # and not 20,000
        assert looker.facts()["sample"] == before["sample"]
        assert looker.facts()["position"] == before["position"]
        looker.press("Shift+ArrowRight")  # the next of its prompt, though few are drawn
        assert looker.facts()["position"] == str(int(before["position"]) + 1)
        looker.press("Enter")
        exported = looker.exported()
        assert exported["position"].tolist() == [int(before["position"]) + 1]


def test_the_lasso_says_how_many_of_the_tokens_inside_are_drawn(browser, asked):
    with visited(browser, asked) as looker:
        box = looker.canvas.bounding_box()
        looker.page.click('[data-part="lasso"]')
        corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
        looker.page.mouse.move(*at[0])
        looker.page.mouse.down()
        for place in at[1:]:
            looker.page.mouse.move(*place)
        with looker.page.expect_response(lambda one: "/api/inside" in one.url) as response:
            looker.page.mouse.up()
        inside = response.value.json()["inside"]
        until(looker, "lie inside the lasso")
        selected = looker.counts()[1]
        assert 10_000 < selected < inside <= 60_000
        assert (
            f"{inside:,} tokens lie inside the lasso, and {selected:,} of them are drawn: only "
            "those are selected." in looker.text("count")
        )
        looker.page.click('[data-part="clear"]')
        assert "lasso" not in looker.text("count")


def test_hostile_text_is_shown_as_text(browser, tmp_path):
    vectors = made_vectors(gap=1.0)
    text = vectors.labels["role"] == "question"
    vectors.labels.loc[text, "token"] = [HOSTILE[n % len(HOSTILE)] for n in range(text.sum())]
    vectors.labels["sample_id"] = vectors.labels["sample_id"].replace({"s000": HOSTILE[0]})
    run_of(vectors, tmp_path / "run", [0])
    with served(Store(tmp_path / "run")) as client, visited(browser, client) as looker:
        title = looker.page.title()
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        shown = ""
        for _ in range(16):
            looker.press("Shift+ArrowRight")
            until(looker, "question", "card")
            shown += looker.text("card")
        for hostile in (
            "</script><script>",
            "onerror=",
            "\\u{202e}",
            "nul\\u{0}byte",
            "line↵break",
        ):
            assert hostile in shown
        assert "\u202e" not in shown
        assert looker.page.title() == title
        assert looker.page.locator("#explorer-view script").count() == 1
        assert looker.page.locator("#explorer-view img:not(.frame img)").count() == 0


@pytest.mark.parametrize("width", [400, 800])
def test_it_fits_narrow_windows(browser, asked, width):
    with visited(browser, asked) as looker:
        looker.page.set_viewport_size({"width": width, "height": 800})
        looker.page.focus('[data-part="plot"]')
        looker.press("Home", "Enter")
        assert looker.page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_says_so_when_the_command_has_ended(browser, asked):
    page = browser.new_page()
    page.goto(asked.server.url)
    looker = Looker(page)
    until(looker, "tokens shown")
    page.route("**/api/**", lambda route: route.abort("connectionrefused"))
    looker.fill("word", "word1")
    until(looker, "keygap view has ended")
    page.close()
