"""Cross-attention: image keys and text keys are in different layers, and are not compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import keygap as kg
from keygap.capture.features import feature_labels, visible_features
from keygap.contrasts.labels import is_visual
from keygap.models.load import wrap
from made import bench_of, made_sample

from .zoo import BY_FAMILY

TOKENS_OF_A_TILE = 17  # 32 x 32 pixels in patches of 8, and a class token


@pytest.fixture(scope="module")
def mllama() -> kg.VLM:
    return wrap(*BY_FAMILY["mllama"].build(), name="tiny mllama")


def samples(count: int) -> list:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        shape = (32, 32 * (1 + number % 3), 3)  # one tile, two, three
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        sample = made_sample(f"s{number:02}", f"is it number {number}, or a thing of {number % 3}?")
        made.append(replace(sample, images=(picture,)))
    return made


@pytest.fixture(scope="module")
def store(mllama, tmp_path_factory) -> kg.Store:
    out = tmp_path_factory.mktemp("runs") / "mllama"
    sites = ["k_proj", "key", "q_proj"]
    return kg.extract(mllama, bench_of(samples(12)), out, layers=["all"], sites=sites)


def test_features_are_counted_without_padding(mllama):
    batch = mllama.prompter(samples(3))
    count = 4 * TOKENS_OF_A_TILE  # padded to four tiles
    visible = visible_features(batch.inputs, count)
    assert visible.sum(1).tolist() == [n * TOKENS_OF_A_TILE for n in (1, 2, 3)]
    one = feature_labels(batch.inputs, 0, count, 5, "<|image|>")
    assert one.patch_row.tolist() == [-1, *(row for row in range(4) for _ in range(4))]
    assert one.patch_column.tolist() == [-1, *(list(range(4)) * 4)]
    two = feature_labels(batch.inputs, 1, count, 5, "<|image|>")
    assert set(two.patch_row) == {-1}  # how tiles make up the image is not guessed


@pytest.mark.parametrize(
    ("size", "tiles", "rows", "columns"),
    [
        ((32, 32), (1, 1), 4, 4),
        ((32, 24), (1, 1), 3, 4),  # width and height: a row of patches of 8 pixels is below it
        ((24, 32), (1, 1), 4, 3),
        ((64, 20), (1, 2), 3, 8),  # the third row shows four rows of pixels
        ((20, 64), (2, 1), 8, 3),
        ((64, 48), (2, 2), 6, 8),
        ((40, 40), (2, 2), 5, 5),  # smaller than the canvas on both axes
    ],
)
@pytest.mark.parametrize("colour", ["noise", "white"])
def test_what_fills_up_the_tiles_is_padding(mllama, size, tiles, rows, columns, colour):
    width, height = size
    pixels = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels if colour == "noise" else np.full_like(pixels, 255))
    batch = mllama.prompter([replace(made_sample("s"), images=(picture,))])
    labels = feature_labels(batch.inputs, 0, 4 * TOKENS_OF_A_TILE, 5, "<|image|>")
    role = labels.role.reshape(-1, TOKENS_OF_A_TILE)
    assert len(role) == tiles[0] * tiles[1]
    assert set(role[:, 0]) == {""}  # class tokens
    canvas = role[:, 1:].reshape(*tiles, 4, 4).swapaxes(1, 2).reshape(tiles[0] * 4, tiles[1] * 4)
    expected = np.full(canvas.shape, "padding")
    expected[:rows, :columns] = ""
    assert (canvas == expected).all()
    padding = labels.role == "padding"
    assert (labels.patch_row[padding] == -1).all()
    assert (labels.patch_column[padding] == -1).all()


@pytest.mark.parametrize("colour", [0, 100, 255])
def test_an_image_of_one_colour_without_padding_is_no_padding(mllama, colour):
    picture = Image.new("RGB", (64, 32), (colour,) * 3)
    batch = mllama.prompter([replace(made_sample("s"), images=(picture,))])
    labels = feature_labels(batch.inputs, 0, 4 * TOKENS_OF_A_TILE, 5, "<|image|>")
    assert set(labels.role) == {""}


def test_padding_of_tiles_is_on_no_image_side(mllama, tmp_path):
    wide = [replace(each, images=(Image.new("RGB", (64, 20), "red"),)) for each in samples(4)]
    store = kg.extract(mllama, bench_of(wide), tmp_path / "run", layers=[1], sites=["key"])
    labels = store.vectors("key", 1).labels
    shown = is_visual(labels)
    assert shown.sum() == 4 * (2 * TOKENS_OF_A_TILE - 8)  # a row of four patches in each tile


def test_the_store_has_image_keys_where_they_are_and_text_keys_where_they_are(store):
    counts = store.tokens.groupby("modality", observed=True).size()
    for site in ("k_proj", "key"):
        for layer, modality in ((0, "text"), (1, "image"), (2, "text"), (3, "image")):
            vectors = store.vectors(site, layer)
            assert set(vectors.labels["modality"]) == {modality}
            assert len(vectors) == counts[modality]
    queries = store.vectors("q_proj", 1)  # text asks
    assert set(queries.labels["modality"]) == {"text"}
    assert queries.labels["attention"].isna().all()
    assert store.samples["n_image_tokens"].tolist() == [
        TOKENS_OF_A_TILE * (1 + int(name[1:]) % 3) for name in store.samples["sample_id"]
    ]
    assert store.manifest["cross_attention_layers"] == [1, 3]


def test_batches_do_not_change_what_is_stored(mllama, store, tmp_path):
    single = kg.extract(
        mllama, bench_of(samples(12)), tmp_path / "one", layers=[1], sites=["key"], batch_size=1
    )
    one, many = single.vectors("key", 1), store.vectors("key", 1)
    np.testing.assert_allclose(one.array, many.array, atol=1e-5)
    assert one.labels["position"].equals(many.labels["position"])


def test_no_number_is_given_for_what_is_never_in_one_layer(store):
    table = kg.measure(
        store,
        layers=[0, 1],
        sites=["k_proj"],
        contrasts=["image_text", "image_image"],
        n_permutations=20,
        n_bootstraps=20,
    )
    assert "image_text" not in set(table.frame["contrast"])
    assert set(table.frame.query("layer == 1")["contrast"]) >= {"image_image"}
    assert any("image and text meet in cross-attention" in note for note in table.notes)
    table.save(store.root)
    kg.project(store).save(store.root)
    page = kg.report(store.root).read_text()
    assert "keys of layers 1, 3 are image features" in page
    assert "Not measured, and why" in page
