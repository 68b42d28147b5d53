"""What ``keygap view`` answers is what the store holds, thinned and filtered."""

from __future__ import annotations

import base64
import shutil
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from keygap.errors import UserError
from keygap.reporting.view import Explored, components
from keygap.reporting.view.asked import Filter
from keygap.reporting.view.explored import MOST
from keygap.reporting.view.plane import plane
from keygap.reporting.view.tokens import tokens_of
from keygap.store import Store
from keygap.tokens import MODALITIES, ROLES

from .viewed import Client, large_store, served

KINDS = {"id": "<u4", "sample": "<u4", "position": "<u4", "word": "<u4", "modality": "<u1"}
KINDS |= {"role": "<u1", "image": "<i2", "frame": "<i2", "row": "<i2", "column": "<i2"}


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def frame_of(answer: dict[str, Any]) -> pd.DataFrame:
    """The tokens of an answer as a table with text."""
    frame = pd.DataFrame({name: unpacked(answer["tokens"][name], KINDS[name]) for name in KINDS})
    points = answer["points"]
    for axis, name in enumerate("xy"):
        steps = unpacked(points[name], "<u2").astype(float)
        frame[name] = points["low"][axis] + steps * points["step"][axis]
    return frame.assign(
        sample_id=[answer["samples"][str(one)] for one in frame["sample"]],
        token=[answer["words"][str(one)] for one in frame["word"]],
        modality=[MODALITIES[one] for one in frame["modality"]],
        role=[ROLES[one] for one in frame["role"]],
        attention=unpacked(answer["attention"], "<f4"),
    )


@pytest.fixture(scope="module")
def client(explored):
    with served(Store(explored)) as found:
        yield found


@pytest.fixture(scope="module")
def labels(explored) -> pd.DataFrame:
    return Store(explored).tokens.astype(dict.fromkeys(("sample_id", "modality", "role"), str))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Store:
    """60,000 tokens in parts of 10 samples."""
    return large_store(tmp_path_factory.mktemp("large") / "run", 120, 10)


@pytest.fixture(scope="module")
def asked(large):
    with served(large) as found:
        yield found


def in_triangle(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Whether points lie on one side of each edge of a triangle."""
    signs = [
        (b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0])
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    return np.all(np.array(signs) > 0, axis=0) | np.all(np.array(signs) < 0, axis=0)


def test_what_lies_inside_a_lasso_is_counted_of_all_tokens(large):
    """60,000 tokens, of which an answer has a third, with and without a filter."""
    explored = Explored(large)
    with served(large) as client:
        answer = client.ask("points", place=0)
        low, high = np.array(answer["low"]), np.array(answer["high"])
        corners = low + (high - low) * np.array([[0.0, 0.1], [0.9, 0.0], [0.4, 0.9]])
        listed = ",".join(map(str, corners.ravel()))
        inside = client.ask("inside", place=0, corners=listed)["inside"]
        image = client.ask("inside", place=0, corners=listed, modality="image")["inside"]
    plane = explored.planes.at(explored.planes.places[0], "pca")
    assert not isinstance(plane, float)
    held = in_triangle(np.stack([plane.x, plane.y], 1).astype(float), corners)
    assert inside == held.sum() > len(frame_of(answer)) / 10
    modality = np.asarray(explored.tokens.columns["modality"])[plane.token]
    assert image == (held & (modality == MODALITIES.index("image"))).sum() < inside
    frame = frame_of(answer)
    drawn = in_triangle(frame[["x", "y"]].to_numpy(), corners).sum()
    assert 0 < drawn < inside


def test_every_token_of_a_small_store_is_answered_as_it_is(client, explored, labels):
    places = Store(explored).site_layers()
    for number, (site, layer) in enumerate(places):
        answer = client.ask("points", place=number)
        frame = frame_of(answer)
        assert answer["total"] == answer["window"] == answer["found"] == len(labels)
        assert frame["id"].tolist() == list(range(len(labels)))
        names = {"patch_row": "row", "patch_column": "column"}
        columns = ("sample_id", "position", "token", "modality", "role", "image", "frame")
        for name in (*columns, *names):
            assert frame[names.get(name, name)].tolist() == labels[name].tolist()
        vectors = Store(explored).vectors(site, layer)
        assert np.allclose(frame["attention"], vectors.labels["attention"], equal_nan=True)


def test_coordinates_are_the_principal_components_of_standardised_vectors(client, explored):
    """All tokens fit into the subsample here, so nothing but the sign is left open."""
    vectors = Store(explored).vectors(*Store(explored).site_layers()[0])
    flat = vectors.array.reshape(len(vectors), -1).astype(float)
    text = (vectors.labels["modality"] == "text").to_numpy()
    weight = np.where(text, 1 / text.sum(), 1 / (~text).sum())
    scaled = StandardScaler().fit(flat, sample_weight=weight).transform(flat)
    expected = PCA(2).fit_transform(scaled)
    found = frame_of(client.ask("points", place=0))[["x", "y"]].to_numpy()
    for axis in range(2):
        sign = np.sign(found[:, axis] @ expected[:, axis])
        assert np.allclose(found[:, axis], sign * expected[:, axis], atol=0.01)


def test_axes_of_a_subsample_are_nearly_those_of_all_and_the_same_each_time(large, monkeypatch):
    tokens, place = tokens_of(large), ("k_proj", 0)
    all_of_them = components.projected(large, tokens, place, 0)
    monkeypatch.setattr(components, "FITTED", 1500)
    some = [components.projected(large, tokens, place, seed) for seed in (0, 0, 1)]
    assert np.array_equal(some[0].points, some[1].points)
    assert not np.array_equal(some[0].points, some[2].points)
    assert np.array_equal(some[0].token, np.arange(len(tokens)))
    first = [one.points[:, 0] for one in (all_of_them, some[0])]
    assert abs(np.corrcoef(first[0], first[1])[0, 1]) > 0.98


def test_tsne_coordinates_are_those_of_the_file(client, explored):
    frame = pd.read_parquet(explored / "projection.parquet")
    frame = frame.astype({"sample_id": str})
    for number, (site, layer) in enumerate(Store(explored).site_layers()):
        here = frame[(frame["site"] == site) & (frame["layer"] == layer)]
        here = here.set_index(["sample_id", "position"])[["x", "y"]].sort_index()
        answer = frame_of(client.ask("points", place=number, method="tsne"))
        found = answer.set_index(["sample_id", "position"])[["x", "y"]].sort_index()
        assert found.index.equals(here.index)
        assert np.allclose(found, here, atol=np.ptp(here.to_numpy()) / 1000)


def test_a_run_that_was_not_projected_has_components_alone(asked):
    status, body, _ = asked.raw("/api/points?place=0&method=tsne")
    assert status == 400
    assert b"no tsne coordinates" in body


def test_a_window_has_at_most_so_many_points_and_counts_all(asked):
    whole = asked.ask("points", place=0)
    assert whole["tokens"]["count"] == MOST
    assert whole["window"] == whole["total"] == 60_000
    left, bottom = whole["low"]
    right, top = whole["high"]
    part = asked.ask("points", place=0, left=left, right=(left + right) / 2, bottom=bottom, top=top)
    assert part["window"] < 60_000
    frame = frame_of(part)
    assert frame["x"].max() <= (left + right) / 2 + 1e-3


def test_the_lone_point_is_shown_and_points_stay_when_the_window_moves_or_shrinks():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(300_000, 2))
    points[1234] = [90, 90]
    made = plane(np.arange(len(points)), points, np.full(len(points), np.nan), 0)
    whole = made.thinned(made.whole, 5000)
    assert len(whole.rows) == 5000
    assert 1234 in made.token[whole.rows]
    again = plane(np.arange(len(points)), points, np.full(len(points), np.nan), 0)
    assert np.array_equal(again.thinned(made.whole, 5000).rows, whole.rows)

    def shown(left: float, right: float) -> set[int]:
        return set(made.thinned((left, right, -2, 2), 5000).rows.tolist())

    def inside(rows: set[int], left: float, right: float) -> set[int]:
        return {row for row in rows if left <= made.x[row] <= right and -2 <= made.y[row] <= 2}

    before, after = shown(-2, 2), shown(-1.9, 2.1)
    stay = inside(before, -1.9, 2)
    assert len(stay & after) / len(stay) > 0.95
    close = shown(-1, 1)
    seen = inside(before, -1, 1)
    assert len(close) > len(seen)
    assert len(seen & close) / len(seen) > 0.95


@pytest.mark.parametrize(
    ("asked_for", "rule"),
    [
        ({"word": "WORD17"}, lambda t: t["token"].str.contains("word17")),
        ({"modality": "image"}, lambda t: t["modality"] == "image"),
        ({"role": "question"}, lambda t: t["role"] == "question"),
        ({"role": "patch"}, lambda t: t["modality"] == "image"),
        ({"of": "S00001"}, lambda t: t["sample_id"].str.contains("s00001")),
        ({"position-from": 3, "position-to": 9}, lambda t: t["position"].between(3, 9)),
        ({"row-to": 1}, lambda t: t["patch_row"].between(0, 1)),
        ({"column-from": 18}, lambda t: t["patch_column"] >= 18),
        ({"attention-from": 4}, lambda t: t["attention"] >= 4),
        ({"sink": "sinks"}, lambda t: t["attention"] >= 5),
        ({"sink": "others", "modality": "text"},
         lambda t: (t["attention"] < 5) & (t["modality"] == "text")),
    ],
)  # fmt: skip
def test_filters_find_what_a_table_finds(asked, large, asked_for, rule):
    table = large.vectors("k_proj", 0).labels
    table = table.astype(dict.fromkeys(("sample_id", "modality", "role"), str))
    expected = set(np.flatnonzero(rule(table)))
    answer = asked.ask("points", place=0, **asked_for)
    assert answer["found"] == answer["matching"] == len(expected)
    shown = set(frame_of(answer)["id"])
    assert len(shown) == MOST
    if len(expected) <= MOST * 3 // 4:
        assert expected <= shown
    else:
        assert len(expected & shown) >= MOST * 3 // 4


def test_a_token_whose_attention_is_not_known_is_neither_a_sink_nor_no_sink():
    plane: Any = SimpleNamespace(token=np.arange(3), attention=np.array([6.0, 1.0, np.nan]))

    class Tokens:
        columns: ClassVar = {"modality": np.zeros(3)}

        def __len__(self) -> int:
            return 3

    tokens: Any = Tokens()
    for sink, at in (("sinks", 0), ("others", 1)):
        match = Filter(sink=sink).match(tokens, plane)
        assert np.flatnonzero(np.asarray(match)).tolist() == [at]


def test_tokens_that_are_kept_and_those_of_a_sample_are_there_wherever_they_lie(asked):
    far = {"left": 1e6, "right": 1e6 + 1, "bottom": 0, "top": 1}
    assert asked.ask("points", place=0, **far)["tokens"]["count"] == 0
    frame = frame_of(asked.ask("points", place=0, keep="59999,7", sample=3, **far))
    assert frame["id"].tolist() == [7, *range(1500, 2000), 59_999]


def test_a_sample_has_its_prompt_and_its_pictures(client, explored, labels):
    names = tokens_of(Store(explored)).samples
    answer = client.ask("sample", sample=5)
    own = labels[labels["sample_id"] == names[5]]
    prompts = answer["prompts"]
    length = unpacked(prompts["length"], "<u4")
    words = [answer["words"][str(one)] for one in unpacked(prompts["word"], "<u4")[length == 0]]
    inside = (own["modality"] != "text") | (own["role"] == "separator")
    assert words == own.loc[~inside, "token"].tolist()
    assert length.sum() == inside.sum()
    kept = Store(explored).thumbnails
    picture = kept.loc[kept["sample_id"].astype(str) == names[5], "picture"].iloc[0]
    assert [base64.b64decode(one) for one in answer["pictures"]] == [picture]
    assert answer["thumbnails"]["rows"][0][0] == 5


def test_words_are_searched_in_all_tokens(asked, large):
    spelled = large.tokens.query("modality == 'text'")["token"]
    counts = spelled[spelled.str.contains("word44")].value_counts()
    answer = asked.ask("words", word="Word44")
    assert answer["words"] == len(counts)
    assert answer["tokens"] == counts.sum()
    assert dict(answer["most"]) == counts.head(50).to_dict() or len(counts) > 50
    assert answer["most"][0][1] == counts.iloc[0]


def test_the_same_token_elsewhere(client, explored):
    places = Store(explored).site_layers()
    expected = [
        Store(explored).vectors(site, layer).labels["attention"].iloc[11] for site, layer in places
    ]
    with served(Store(explored)) as fresh:  # which has read no layer yet
        found: list[float] = []
        while len(found) < len(places):
            found += fresh.ask("elsewhere", token=11, first=len(found))["attention"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_damage_is_one_line_and_not_an_empty_plane(explored, tmp_path):
    shutil.copytree(explored, tmp_path / "run")
    path = next((tmp_path / "run/vectors").rglob("part-*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    site, layer = path.parts[-3].removeprefix("site="), int(path.parts[-2].removeprefix("layer="))
    store = Store(tmp_path / "run")
    with served(store) as client:
        number = store.site_layers().index((site, layer))
        while True:
            status, body, _ = client.raw(f"/api/points?place={number}")
            if b"preparing" not in body:
                break
        assert status == 409
        assert b"is damaged or foreign" in body
    next((tmp_path / "run/tokens").glob("part-*.parquet")).write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        Explored(store)


def test_a_layer_that_reads_few_tokens_shows_those(tmp_path):
    """In a model with cross-attention a layer's keys are image features or words, never both."""
    from .test_view_server import halved

    store = halved(large_store(tmp_path / "run", 4, 2))
    with served(store) as client:
        answer = client.ask("points", place=0)
        frame = frame_of(answer)
        assert answer["total"] == 4 * 400
        assert set(frame["modality"]) == {"image"}
        text = client.ask("elsewhere", token=450, first=0)["attention"]
        assert text == [None]


def test_what_a_client_needs_is_in_the_page(client: Client):
    status, body, headers = client.raw("/")
    assert status == 200
    assert b"explorer-data" in body
    assert headers["Content-Type"].startswith("text/html")
