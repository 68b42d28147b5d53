"""The explorer with keys alone, at any width, in both colour schemes, and with hostile text."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import keygap as kg
from keygap.store import save_results
from made import made_vectors
from store.made import run_of

from .explored import BROWSER, Looker, computed, looked_at, opened, reported

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH")
HOSTILE = (
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=document.title='run'>",
    "<!--<script>",
    "\"quotes\", 'and' commas",
    "\u202eright to left\u2066",
    "nul\x00byte",
    "long" * 25_000,
    "`${document.title='run'}`",
    "line\nbreak",
)


@pytest.fixture(scope="module")
def report(explored):
    return reported(explored)


@pytest.fixture
def looker(browser, report):
    with opened(browser, report) as page:
        yield Looker(page)


def active(looker: Looker) -> str:
    """What has the focus: the name of a control, its part or its text."""
    return looker.page.evaluate(
        "() => { const a = document.activeElement;"
        " return a.name || a.dataset.part || a.textContent.trim().slice(0, 40); }"
    )


def tab_to(looker: Looker, name: str) -> None:
    for _ in range(60):
        looker.press("Tab")
        if active(looker) == name:
            return
    raise AssertionError(f"no key leads to {name}")


def test_every_control_can_be_reached_with_the_tab_key(looker):
    found = []
    for _ in range(80):
        looker.press("Tab")
        found.append(active(looker))
    wanted = {"run", "place", "method", "colour", "word", "select", "all", "More filters", "plot"}
    wanted |= {"lasso", "closer", "farther", "whole", "clear", "Mouse and keys", "key, layer 1"}
    assert wanted <= set(found)


def test_keys_alone_find_select_and_export(looker, explored):
    """Without a pointer: a word is searched, a token looked at and selected, and a file saved."""
    order = kg.Store(explored).tokens
    tab_to(looker, "place")
    looker.press("ArrowDown")  # to the second place
    assert looker.page.input_value("select[name=place]") == "1"
    tab_to(looker, "plot")
    looker.press("Home")
    first = looker.facts()
    looker.press("Enter", "Shift+ArrowRight", "Enter")
    second = looker.facts()
    assert looker.counts()[1] == 2
    at = order.index[
        (order["sample_id"] == first["sample"]) & (order["position"] == int(first["position"]))
    ][0]
    later = order.index[
        (order["sample_id"] == second["sample"]) & (order["position"] == int(second["position"]))
    ][0]
    assert later > at
    looker.press("PageDown")
    third = looker.facts()
    samples = kg.Store(explored).samples["sample_id"].tolist()
    assert samples.index(third["sample"]) > samples.index(second["sample"])
    assert looker.page.locator('[data-part="status"]').inner_text().endswith("even share")
    looker.press("[")
    assert looker.page.input_value("select[name=place]") == "0"
    assert looker.facts()["sample"] == third["sample"]
    looker.press("Enter")
    assert looker.counts()[1] == 3
    tab_to(looker, "export")
    with looker.page.expect_download() as download:
        looker.press("Enter")
    rows = pd.read_csv(download.value.path())
    assert {(row["sample_id"], str(row["position"])) for _, row in rows.iterrows()} == {
        (one["sample"], one["position"]) for one in (first, second, third)
    }
    looker.page.focus('[data-part="plot"]')
    looker.press("Escape")
    assert looker.counts()[1] == 0
    assert "Point at a token" in looker.text("card")


def test_arrows_move_in_their_direction(looker, explored):
    frame = pd.read_parquet(explored / "projection.parquet").query(
        "site == 'k_proj' and layer == 0"
    )
    frame = frame.astype({"sample_id": str}).set_index(["sample_id", "position"])

    def here() -> pd.Series:
        facts = looker.facts()
        return frame.loc[(facts["sample"], int(facts["position"]))]

    looker.choose("place", "0")
    looker.page.focus('[data-part="plot"]')
    looker.press("ArrowRight")
    for key, column, sign in (
        *(("ArrowRight", "x", 1), ("ArrowUp", "y", 1), ("ArrowLeft", "x", -1)),
        *(("ArrowDown", "y", -1), ("ArrowDown", "y", -1)),
    ):
        before = here()
        looker.press(key)
        assert sign * (here()[column] - before[column]) > 0


def test_a_search_and_enter_select_without_the_lasso(looker):
    looker.page.focus("input[name=word]")
    looker.page.keyboard.type("m")
    shown = looker.counts()[0]
    looker.press("Enter")
    assert looker.counts() == (shown, shown)
    assert shown > 0


@pytest.mark.parametrize("width", [400, 800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_windows_of_any_width(browser, report, width, scheme):
    size = {"width": width, "height": 800}
    with opened(browser, report, viewport=size, color_scheme=scheme) as page:
        looker = Looker(page)
        page.click("text=More filters")
        page.focus('[data-part="plot"]')
        looker.press("Home", "Enter")
        page.click("text=The same token elsewhere")
        page.click("text=Mouse and keys")
        wide = page.evaluate(
            "() => [...document.querySelectorAll('#explorer-view *')].filter((one) =>"
            " one.checkVisibility() && !one.closest('.small, .out') &&"
            " one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML)"
        )
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            "() => [...document.querySelectorAll('#explorer-view *')].filter((one) =>"
            " one.checkVisibility() && parseFloat(getComputedStyle(one).fontSize) < 11)"
            ".map((one) => one.outerHTML)"
        )
        assert small == []


def test_light_and_dark_differ(browser, report):
    mean = {}
    for scheme in ("light", "dark"):
        with opened(browser, report, color_scheme=scheme) as page:
            shot = page.locator('[data-part="plot"]').screenshot()
            mean[scheme] = np.asarray(Image.open(io.BytesIO(shot)).convert("L")).mean()
            page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
            page.wait_for_timeout(100)
            shot = page.locator('[data-part="plot"]').screenshot()
            turned = np.asarray(Image.open(io.BytesIO(shot)).convert("L")).mean()
            assert abs(turned - mean[scheme]) > 100
    assert mean["light"] > 200
    assert mean["dark"] < 60


def test_a_model_without_patches_says_so(browser, tmp_path):
    page = reported(looked_at("instructblip", tmp_path / "run"))
    with opened(browser, page) as opening:
        looker = Looker(opening)
        assert "do not correspond to single patches" in looker.text("notes")
        looker.page.click("text=More filters")
        looker.choose("modality", "image")
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        assert looker.facts()["title"] == "image token"
        assert "do not correspond to single patches" in looker.text("card")
        assert opening.locator(".pictures img").count() == 1
        assert opening.locator(".patch").count() == 0


def test_a_run_without_thumbnails_says_so(browser, tmp_path):
    page = reported(looked_at("qwen2_vl", tmp_path / "run", thumbnails=False))
    assert "UklGR" not in page.read_text()  # the beginning of a picture in base64
    with opened(browser, page) as opening:
        looker = Looker(opening)
        assert "keeps no thumbnails" in looker.text("notes")
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        assert "row 0, column" in looker.facts()["patch"]
        assert opening.locator(".pictures img").count() == 0


def test_a_projection_of_an_earlier_keygap_says_what_it_lacks(browser, explored, tmp_path):
    shutil.copytree(explored, tmp_path / "run")
    frame = pd.read_parquet(explored / "projection.parquet")
    old = frame.drop(columns=["pc_1", "pc_2", "attention", "image", "frame"])
    save_results(tmp_path / "run", {"projection.parquet": pa.Table.from_pandas(old)})
    with opened(browser, reported(tmp_path / "run")) as opening:
        looker = Looker(opening)
        assert "without principal components and the attention" in looker.text("notes")
        looker.page.focus('[data-part="plot"]')
        looker.press("Home")
        assert looker.facts()["attention"] == "not known"
        for value in ("pca", "sink"):
            option = opening.locator(f"option[value={value}]")
            assert option.evaluate("element => element.disabled"), value
        assert opening.locator(".patch").count() == 1


def test_a_token_whose_attention_is_not_known_is_neither_a_sink_nor_no_sink(
    browser, explored, tmp_path
):
    shutil.copytree(explored, tmp_path / "run")
    frame = pd.read_parquet(explored / "projection.parquet")
    here = (frame["site"] == "k_proj") & (frame["layer"] == 1)
    at = frame.index[here]
    frame.loc[at[:3], "attention"] = 6.0
    frame.loc[at[3:10], "attention"] = np.nan
    save_results(tmp_path / "run", {"projection.parquet": pa.Table.from_pandas(frame)})
    known = frame.loc[at, "attention"]
    with opened(browser, reported(tmp_path / "run")) as page:
        looker = Looker(page)
        looker.choose("place", "1")
        page.click("text=More filters")
        for value, number in (("sinks", (known >= 5).sum()), ("others", (known < 5).sum())):
            looker.choose("sink", value)
            assert looker.counts()[0] == number < len(at) - 7 + 1
        looker.choose("sink", "")
        looker.choose("colour", "sink")
        assert "not known" in looker.text("legend")


def test_hostile_text_changes_nothing_but_its_own_text(browser, tmp_path):
    vectors = made_vectors(gap=1.0)
    text = vectors.labels["role"] == "question"
    vectors.labels.loc[text, "token"] = [HOSTILE[n % len(HOSTILE)] for n in range(text.sum())]
    run_of(vectors, tmp_path / "run", [0])
    store = kg.Store(tmp_path / "run")
    computed(store, tokens=60, perplexity=5)
    with opened(browser, reported(store.root)) as page:
        looker = Looker(page)
        title = page.title()
        looker.choose("place", "0")
        page.click("text=More filters")
        looker.choose("modality", "text")
        page.click('[data-part="select"]')
        shown = " ".join(page.locator('[data-part="list"] bdi').all_inner_texts())
        page.focus('[data-part="plot"]')
        looker.press("Home")
        for _ in range(30):
            shown += looker.text("card")
            looker.press("Shift+ArrowRight")
        for hostile in (
            "</script><script>",
            "onerror=",
            "\\u{202e}",
            "nul\\u{0}byte",
            "line↵break",
        ):
            assert hostile in shown
        assert "(100,000 characters)" in shown
        assert "\u202e" not in shown
        assert page.title() == title != "run"
        assert page.locator("#explorer-view script").count() == 1
        assert page.locator("#explorer-view img:not(.frame img)").count() == 0
        exported = looker.exported()
        assert set(exported["token"]) <= set(HOSTILE)
        assert {"\u202eright to left\u2066", "long" * 25_000} <= set(exported["token"])


@pytest.mark.slow
def test_many_points_are_panned_without_jerks(browser, tmp_path):
    """20,000 points, more than 30 frames a second, without a graphics card."""
    vectors = made_vectors(samples=360, pictures=(49,), words=7)
    run_of(vectors, tmp_path / "run", [0])
    store = kg.Store(tmp_path / "run")
    computed(store)
    labels = store.vectors("k_proj", 0).labels
    rng = np.random.default_rng(0)
    frame = labels.assign(site="k_proj", layer=0).drop(columns=["subject", "language"])
    frame[["x", "y", "pc_1", "pc_2"]] = rng.normal(size=(len(frame), 4))
    assert len(frame) > 20_000
    save_results(store.root, {"projection.parquet": pa.Table.from_pandas(frame)})
    with opened(browser, reported(store.root)) as page:
        box = page.locator('[data-part="plot"]').bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.mouse.down()
        page.evaluate(
            "() => { window.at = []; const tick = (now) => { at.push(now);"
            " requestAnimationFrame(tick); }; requestAnimationFrame(tick); }"
        )
        for step in range(60):
            page.mouse.move(box["x"] + 300 + 3 * step, box["y"] + 200 + step)
        frames = np.diff(page.evaluate("at"))
        page.mouse.up()
        assert len(frames) > 20
        assert np.median(frames) < 1000 / 30
