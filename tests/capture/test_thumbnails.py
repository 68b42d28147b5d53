"""What a prompt shows is kept small, upright, and under the numbers that labels use."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import Piece, Sample
from keygap.capture.thumbnails import SIDE, thumbnail, thumbnail_table
from keygap.models.load import wrap
from keygap.store.schema import THUMBNAILS_SCHEMA
from keygap.tokens import TokenLabels
from made import bench_of, files_of, made_sample
from models.zoo import BY_FAMILY

RED, BLUE, GREEN, GREY = (220, 0, 0), (0, 0, 220), (0, 160, 0), (90, 90, 90)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels.reshape(-1, 3).mean(0) - colour).max() < 12)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (64, 64)),
        ((96, 20), (96, 20)),
        ((400, 300), (96, 72)),
        ((300, 600), (48, 96)),
        ((4000, 21), (96, 1)),
    ],
)
def test_a_picture_is_at_most_96_pixels_and_keeps_its_shape(size, expected):
    data, found = thumbnail(Image.new("RGB", size, RED))
    assert found == expected
    assert opened(data).shape[:2] == expected[::-1]
    assert near(opened(data), RED)
    assert max(found) <= SIDE == 96


def test_a_part_of_the_picture_stays_where_it_is():
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[150:, 300:] = BLUE  # rows 2 and 3 of 4, column 3 of 4
    found = opened(thumbnail(Image.fromarray(pixels))[0])
    assert near(found[40:, 76:], BLUE)
    assert near(found[:32], (0, 0, 0))
    assert near(found[40:, :68], (0, 0, 0))


def test_transparency_is_white_as_for_the_model():
    sample = made_sample("s")
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    (row,) = thumbnail_table(
        Sample("s", (clear,), "q", sample.prompt), labels(image=[0])
    ).to_pylist()
    assert near(opened(row["picture"]), (255, 255, 255))


def labels(image: list[int], frame: list[int] | None = None) -> TokenLabels:
    size = len(image)
    none = np.full(size, -1, np.int32)
    return TokenLabels(
        token_id=none, token=np.full(size, "x"), modality=np.full(size, "image"),
        role=np.full(size, ""), image=np.array(image, np.int32),
        frame=none if frame is None else np.array(frame, np.int32), patch_row=none,
        patch_column=none,
    )  # fmt: skip


def pictures(*colours: tuple[int, int, int]) -> tuple[Image.Image, ...]:
    return tuple(Image.new("RGB", (64, 48), colour) for colour in colours)


def test_images_are_numbered_in_the_order_of_the_prompt_and_not_of_the_sample():
    prompt = (Piece("image", image=1), Piece("text", text="or"), Piece("image", image=0))
    sample = Sample("s", pictures(RED, BLUE), "q", prompt)
    table = thumbnail_table(sample, labels(image=[0, -1, 1]))
    assert table.schema == THUMBNAILS_SCHEMA
    first, second = table.to_pylist()
    assert (first["image"], second["image"]) == (0, 1)
    assert near(opened(first["picture"]), BLUE)
    assert near(opened(second["picture"]), RED)
    assert (first["image_width"], first["image_height"]) == (64, 48)
    assert first["grid_rows"] is None  # nothing is known of the patches


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        ([0, 0, 1, 1], {0: RED, 1: GREEN}),  # the model joins two pictures
        ([0, 1, 2, 3], {0: RED, 1: BLUE, 2: GREEN, 3: GREY}),
        ([-1, -1, -1, -1], {-1: RED}),
    ],
)
def test_frames_are_those_of_the_labels(frame, shown):
    prompt = (Piece("video"), Piece("text", text="q"))
    film = (*pictures(RED, BLUE, GREEN, GREY),)
    table = thumbnail_table(
        Sample("s", (), "q", prompt, videos=(film,)), labels(image=[0] * 4, frame=frame)
    )
    found = {row["frame"]: opened(row["picture"]) for row in table.to_pylist()}
    assert list(found) == list(shown)
    for number, colour in shown.items():
        assert near(found[number], colour)


def test_a_run_keeps_a_thumbnail_and_a_grid_for_each_image_and_frame(tmp_path):
    vlm = wrap(*BY_FAMILY["qwen2_vl"].build(), name="tiny")
    prompt = (Piece("image"), Piece("text", text="and"), Piece("video"), Piece("text", text="q?"))
    samples = [
        Sample(f"s{n}", pictures(RED), "q?", prompt, videos=(pictures(*[GREEN] * 2, *[GREY] * 2),))
        for n in range(3)
    ]
    store = kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[1], batch_size=2)
    found = store.thumbnails
    assert found is not None
    keys = list(zip(found["sample_id"], found["image"], found["frame"], strict=True))
    assert keys == [(f"s{n}", *own) for n in range(3) for own in ((0, -1), (1, 0), (1, 1))]
    for row, colour in zip(found.to_dict("records"), [RED, GREEN, GREY] * 3, strict=True):
        assert near(opened(row["picture"]), colour)
        assert (row["grid_rows"], row["grid_columns"]) == (3, 4)
    tokens = store.tokens[store.tokens["modality"] != "text"]
    largest = tokens.groupby("image")[["patch_row", "patch_column"]].max()
    assert (largest.to_numpy() == [2, 3]).all()


def test_a_run_without_thumbnails_has_the_same_vectors(tmp_path):
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny")
    bench = bench_of([made_sample(f"s{n}") for n in range(3)])
    runs = {
        kept: kg.extract(vlm, bench, tmp_path / str(kept), layers=[1], thumbnails=kept)
        for kept in (True, False)
    }
    assert runs[False].thumbnails is None
    assert not (tmp_path / "False/thumbnails").exists()
    assert len(runs[True].thumbnails) == 3
    both = {name: files_of(tmp_path / name) for name in ("True", "False")}
    assert set(both["True"]) - set(both["False"]) == {"thumbnails/part-00000.parquet"}
    for name, data in both["False"].items():
        if name.startswith(("tokens", "vectors", "samples")):
            assert both["True"][name] == data


def test_a_run_is_not_continued_with_the_other_setting(tmp_path):
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny")
    bench = bench_of([made_sample(f"s{n}") for n in range(3)])
    kg.extract(vlm, bench, tmp_path / "run", layers=[1])
    before = files_of(tmp_path / "run")
    with pytest.raises(kg.UserError, match="its thumbnails is True, not False"):
        kg.extract(vlm, bench, tmp_path / "run", layers=[1], thumbnails=False)
    assert files_of(tmp_path / "run") == before
