"""The explorer in a real browser shows what the run's own tables hold, with mouse and keyboard."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

import keygap as kg
from keygap.benchmarks import Piece, Sample
from keygap.models.load import wrap
from made import bench_of
from models.zoo import BY_FAMILY

from .explored import BROWSER, Looker, computed, looked_at, opened, reported

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH")
SITE, LAYER = "k_proj", 1  # what the tests look at, if nothing else is said


@pytest.fixture(scope="module")
def report(explored):
    return reported(explored)


@pytest.fixture(scope="module")
def projection(explored) -> pd.DataFrame:
    frame = pd.read_parquet(explored / "projection.parquet")
    return frame.astype(dict.fromkeys(("sample_id", "modality", "role"), str))


@pytest.fixture
def there(projection) -> pd.DataFrame:
    """The points of the site and layer that tests look at."""
    frame = projection.query("site == @SITE and layer == @LAYER")
    return frame.reset_index(drop=True)


@pytest.fixture
def looker(browser, report):
    with opened(browser, report) as page:
        found = Looker(page)
        found.choose("place", "1")
        assert "k_proj, layer 1" in page.locator("[aria-pressed=true]").all_inner_texts()
        yield found


def alone(points: np.ndarray, rows: pd.Index) -> int:
    """The row, among some, that is farthest from its neighbour on the screen."""
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag([np.inf] * len(points))
    return int(rows[int(gaps.min(1)[rows].argmax())])


def test_pointing_at_a_word_shows_it_in_its_prompt(looker, there, explored):
    points = looker.screen(there)
    row = alone(points, there.index[there["modality"] == "text"])
    looker.page.mouse.move(*points[row])
    token = there.loc[row]
    facts = looker.facts()
    assert facts["sample"] == token["sample_id"]
    assert facts["position"] == str(token["position"])
    assert facts["kind"] == f"text token, role {token['role']}"
    assert facts["attention"].startswith(f"{token['attention']:.2f} × the even share")
    prompt = kg.Store(explored).tokens.query("sample_id == @token.sample_id")
    words = looker.page.locator(".prompt .word").all_inner_texts()
    shown = prompt[prompt["modality"] == "text"]
    for spelled in set(shown["token"]) & {"thing", "number", "is"}:
        assert any(spelled in word for word in words)
    here = looker.page.locator(".prompt mark").inner_text()
    spelled = prompt.set_index("position")["token"][token["position"]]
    assert here.strip() == spelled.replace("Ġ", " ").replace("▁", " ").strip()
    group = looker.page.locator(".prompt .group", has=looker.page.locator("mark"))
    assert group.get_attribute("data-role") == token["role"]
    assert "image" in looker.page.locator(".prompt small").all_inner_texts()


def test_pointing_at_a_patch_outlines_it_on_its_image(looker, there, explored):
    points = looker.screen(there)
    row = alone(points, there.index[there["modality"] == "image"])
    looker.page.mouse.move(*points[row])
    token = there.loc[row]
    assert looker.facts()["patch"] == (
        f"row {token['patch_row']}, column {token['patch_column']} (from 0)"
    )
    kept = kg.Store(explored).thumbnails.query("sample_id == @token.sample_id").iloc[0]
    image = looker.page.locator(".pictures img")
    shown = base64.b64decode(image.get_attribute("src").partition(",")[2])
    assert shown == kept["picture"]
    assert Image.open(io.BytesIO(shown)).size == (64, 48)
    assert image.evaluate("image => image.complete && image.naturalWidth") == 64
    whole, patch = image.bounding_box(), looker.page.locator(".patch").bounding_box()
    # 64 x 48 pixels in patches of 8, merged two by two: three rows of four
    expected = {
        "x": whole["x"] + whole["width"] * token["patch_column"] / 4,
        "y": whole["y"] + whole["height"] * token["patch_row"] / 3,
        "width": whole["width"] / 4,
        "height": whole["height"] / 3,
    }
    assert patch == pytest.approx(expected, abs=0.6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "box"),
    [
        # 64 x 48 pixels at the top of two rows of tiles: four rows of patches are 64 pixels high
        ("llama4", (1 / 4, 1 / 3)),
        # 64 pixels wide in patches of 8
        ("llava_next", (1 / 8, 1 / 6)),
    ],
)
def test_a_patch_of_a_padded_image_is_outlined_where_it_is(browser, tmp_path, family, box):
    page = reported(looked_at(family, tmp_path / "run"))
    frame = pd.read_parquet(tmp_path / "run" / "projection.parquet").query("layer == 1")
    shown = frame[(frame["modality"] == "image") & (frame["role"] == "")]
    with opened(browser, page) as opening:
        looker = Looker(opening)
        looker.page.click("text=More filters")
        looker.choose("role", "patch")
        looker.page.focus('[data-part="plot"]')
        seen = set()
        for key in ["Home", *["Shift+ArrowRight"] * 12]:
            looker.press(key)
            facts = looker.facts()
            row, column = (int(word.strip(",")) for word in facts["patch"].split()[1:4:2])
            known = shown.query(
                "sample_id == @facts['sample'] and position == " + facts["position"]
            )
            assert set(known["patch_row"]) == {row}
            assert set(known["patch_column"]) == {column}
            whole = looker.page.locator(".pictures img").bounding_box()
            patch = looker.page.locator(".patch").bounding_box()
            expected = {
                "x": whole["x"] + whole["width"] * box[0] * column,
                "y": whole["y"] + whole["height"] * box[1] * row,
                "width": whole["width"] * box[0],
                "height": whole["height"] * box[1],
            }
            assert patch == pytest.approx(expected, abs=0.6)
            seen.add((row, column))
        assert len(seen) > 3


def test_a_token_of_a_video_shows_its_frame(browser, tmp_path):
    """Two pictures of the film are one frame of the model: the first of them is shown."""
    vlm = wrap(*BY_FAMILY["qwen2_vl"].build(), name="tiny")
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90))
    film = tuple(Image.new("RGB", (64, 48), colour) for colour in colours)
    prompt = (Piece("video"), Piece("text", text="what moves here?"))
    samples = [Sample(f"s{n:02}", (), "what?", prompt, videos=(film,)) for n in range(8)]
    store = kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[1])
    computed(store, tokens=60, perplexity=5)
    with opened(browser, reported(store.root)) as page:
        looker = Looker(page)
        page.click("text=More filters")
        looker.choose("modality", "video")
        page.focus('[data-part="plot"]')
        found = {}
        for key in ["Home", *["Shift+ArrowRight"] * 12]:
            looker.press(key)
            facts = looker.facts()
            data = page.locator(".pictures img").get_attribute("src").partition(",")[2]
            picture = Image.open(io.BytesIO(base64.b64decode(data)))
            found[facts["frame"]] = np.asarray(picture).reshape(-1, 3).mean(0)
            assert facts["title"] == "video patch"
        assert set(found) == {"0", "1"}
        np.testing.assert_allclose(found["0"], colours[0], atol=12)
        np.testing.assert_allclose(found["1"], colours[2], atol=12)


def test_the_wheel_scrolls_the_page_until_the_plot_has_the_focus(looker):
    box = looker.canvas.bounding_box()
    looker.page.mouse.move(box["x"] + 200, box["y"] + 100)
    before, shot = looker.page.evaluate("scrollY"), looker.canvas.screenshot()
    looker.page.mouse.wheel(0, 40)
    looker.page.wait_for_function(f"scrollY > {before}")
    assert looker.canvas.screenshot() == shot
    looker.canvas.focus()  # which may scroll the page
    looker.page.wait_for_timeout(100)
    box = looker.canvas.bounding_box()
    looker.page.mouse.move(box["x"] + 200, box["y"] + 150)
    before, shot = looker.page.evaluate("scrollY"), looker.canvas.screenshot()
    looker.page.mouse.wheel(0, -200)
    looker.page.wait_for_timeout(200)
    assert looker.page.evaluate("scrollY") == before
    assert looker.canvas.screenshot() != shot
    looker.page.click('[data-part="whole"]')


def test_pointing_beside_every_point_shows_nothing(looker, there):
    box = looker.canvas.bounding_box()
    looker.page.mouse.move(box["x"] + 2, box["y"] + 2)
    assert "Point at a token" in looker.text("card")
    assert looker.page.locator(".patch").count() == 0


def test_a_token_stays_selected_at_every_site_and_layer(looker, there, projection):
    points = looker.screen(there)
    row = alone(points, there.index)
    looker.page.mouse.click(*points[row])
    token = there.loc[row]
    key = (token["sample_id"], str(token["position"]))
    same = projection.query("sample_id == @token.sample_id and position == @token.position")
    looker.page.mouse.move(0, 0)
    for place in range(4):
        name = looker.page.locator('[data-part="small"] button').nth(place).inner_text().strip()
        looker.page.locator('[data-part="small"] button').nth(place).click()
        facts = looker.facts()
        assert (facts["sample"], facts["position"]) == key
        assert looker.counts()[1] == 1
        own = same[(same["site"] + ", layer " + same["layer"].astype(str)) == name]
        attention = own["attention"].item()
        assert facts["attention"].startswith(f"{attention:.2f} ")
        assert looker.page.input_value("select[name=place]") == str(place)
    exported = looker.exported()
    assert len(exported) == 4
    assert set(zip(exported["site"], exported["layer"], strict=True)) == {
        (site, layer) for site in ("k_proj", "key") for layer in (0, 1)
    }
    found = exported.set_index(["site", "layer"])
    for _, known in same.iterrows():
        row = found.loc[(known["site"], known["layer"])]
        assert row["attention"] == pytest.approx(known["attention"], rel=1e-6)
        assert (row["token"], row["sink"]) == (known["token"], known["attention"] >= 5)
        for ours, theirs in (("tsne_x", "x"), ("tsne_y", "y"), ("pc_1", "pc_1"), ("pc_2", "pc_2")):
            every = projection.query("site == @known.site and layer == @known.layer")[theirs]
            step = float(every.max() - every.min()) / 65535
            assert row[ours] == pytest.approx(known[theirs], abs=step, rel=1e-5)


def test_a_lasso_selects_what_is_inside(looker, there):
    looker.page.click('[data-part="lasso"]')
    points = looker.screen(there)
    box = looker.canvas.bounding_box()
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    corners = [(x + 5, y + 5), (x + 0.62 * width, y + 5), (x + 0.45 * width, y + height - 5)]
    expected = Outline(corners).contains_points(points)
    near = np.abs(np.linalg.norm(points[:, None] - np.array(corners)[None], axis=-1)).min() < 1
    assert 10 < expected.sum() < len(points) - 10
    assert not near
    looker.page.mouse.move(*corners[0])
    looker.page.mouse.down()
    for corner in (*corners[1:], corners[0]):
        looker.page.mouse.move(*corner, steps=4)
    looker.page.mouse.up()
    assert looker.counts() == (len(there), expected.sum())
    assert looker.page.get_attribute('[data-part="lasso"]', "aria-pressed") == "false"
    exported = looker.exported().query("site == @SITE and layer == @LAYER")
    inside = there[expected]
    assert set(zip(exported["sample_id"], exported["position"], strict=True)) == set(
        zip(inside["sample_id"], inside["position"], strict=True)
    )


def test_a_word_is_found_and_all_that_is_found_is_selected(looker, there):
    text = there["modality"] == "text"
    words = there.loc[text, "token"].str.lower()
    letter = words[words.str.fullmatch("[A-Za-z]+")].mode()[0]
    wanted = text & there["token"].str.lower().str.contains(letter, regex=False)
    assert 2 < wanted.sum() < text.sum()
    looker.page.fill("input[name=word]", letter.upper())
    assert looker.counts() == (wanted.sum(), 0)
    looker.page.click('[data-part="select"]')
    assert looker.counts() == (wanted.sum(), wanted.sum())
    assert looker.page.locator('[data-part="list"] button').count() == wanted.sum()
    looker.page.click('[data-part="all"]')
    assert looker.counts() == (len(there), wanted.sum())


@pytest.mark.parametrize(
    ("choices", "fields", "query"),
    [
        ({"modality": "image"}, {}, "modality == 'image'"),
        ({"role": "question"}, {}, "role == 'question'"),
        ({"role": "patch"}, {}, "modality == 'image' and role == ''"),
        ({}, {"sample": "s03"}, "sample_id == 's03'"),
        ({}, {"position-from": "5", "position-to": "9"}, "5 <= position <= 9"),
        ({}, {"row-from": "1", "column-to": "2"}, "patch_row >= 1 and 0 <= patch_column <= 2"),
        ({}, {"attention-from": "1.1"}, "attention >= 1.1"),
        ({"sink": "sinks"}, {}, "attention >= 5"),
        ({"sink": "others", "modality": "text"}, {}, "attention < 5 and modality == 'text'"),
    ],
)
def test_filters_show_what_the_table_says(looker, there, choices, fields, query):
    looker.page.click("text=More filters")
    for name, value in choices.items():
        looker.choose(name, value)
    for name, value in fields.items():
        looker.fill(name, value)
    assert looker.counts()[0] == len(there.query(query))


def test_colours_say_what_they_mean(looker, there):
    before = looker.canvas.screenshot()
    for name, column in (("attention", "attention"), ("position", "position")):
        looker.choose("colour", name)
        low, high = there[column].min(), there[column].max()
        ends = looker.page.locator(".ramp").locator("xpath=..").inner_text().split()
        assert [float(end) for end in ends] == pytest.approx([low, high], rel=0.01)
        after = looker.canvas.screenshot()
        assert after != before
        before = after
    looker.choose("colour", "role")
    assert {"question", "patch"} <= set(looker.text("legend").split())


def test_the_first_two_components_can_be_shown(looker, there):
    row = alone(looker.screen(there, ("pc_1", "pc_2")), there.index)
    looker.choose("method", "pca")
    points = looker.screen(there, ("pc_1", "pc_2"))
    looker.page.mouse.move(*points[row])
    assert looker.facts()["position"] == str(there.loc[row, "position"])
    assert looker.facts()["sample"] == there.loc[row, "sample_id"]
    assert "Two components leave out most of the variance" in looker.text("about")


def test_the_reminder_is_always_there(looker):
    assert looker.page.locator(".reminder").is_visible()
    assert "keeps neighbours, not distances" in looker.text("about")
