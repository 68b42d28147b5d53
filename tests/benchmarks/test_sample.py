"""Choosing samples, ids, letters, and images of every mode."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keygap.benchmarks import BadSample, Entry, Piece, Sample, as_rgb, image_then_question
from keygap.benchmarks.choosing import choose
from keygap.benchmarks.formats.images import open_image
from keygap.benchmarks.sample import unique_ids

from . import fixtures

ENTRIES = st.lists(
    st.builds(Entry, st.uuids().map(str), st.sampled_from("abc"), st.sampled_from(["", "x", "y"])),
    max_size=60,
    unique_by=lambda entry: entry.id,
)


@given(ENTRIES, st.integers(0, 80), st.integers(0, 80), st.integers())
def test_fewer_are_the_beginning_of_more(
    entries: list[Entry], few: int, more: int, seed: int
) -> None:
    few, more = sorted((few, more))
    assert choose(entries, few, seed) == choose(entries, more, seed)[:few]


@given(ENTRIES, st.integers(0, 80), st.integers())
def test_no_item_is_chosen_twice(entries: list[Entry], samples: int, seed: int) -> None:
    chosen = choose(entries, samples, seed)
    assert len(set(chosen)) == len(chosen) == min(samples, len(entries))


@given(ENTRIES, st.integers(0, 80), st.integers(), st.randoms())
def test_the_order_of_the_index_does_not_matter(entries, samples, seed, random) -> None:
    shuffled = random.sample(entries, len(entries))
    ids = [entries[number].id for number in choose(entries, samples, seed)]
    assert ids == [shuffled[number].id for number in choose(shuffled, samples, seed)]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1),
    st.integers(0, 120),
    st.integers(),
)
def test_subjects_are_chosen_in_proportion(sizes: dict[str, int], samples: int, seed: int) -> None:
    entries = [Entry(f"{subject}{n}", subject) for subject in sizes for n in range(sizes[subject])]
    counts = Counter(entries[number].subject for number in choose(entries, samples, seed))
    share = min(samples, len(entries)) / len(entries)
    for subject, size in sizes.items():
        assert abs(counts[subject] - share * size) <= len(sizes) / 2 + 0.5


def test_ids_are_made_unique() -> None:
    assert unique_ids("dev", ["7", None, "7", "", 8]) == ["7", "dev-1", "7#2", "dev-3", "8"]


@given(st.lists(st.sampled_from(["7", "7#1", "7#2", "dev-1", "dev-2#2", "", None]), max_size=9))
def test_every_row_has_an_id_of_its_own(ids: list[str | None]) -> None:
    assert len(set(unique_ids("dev", ids))) == len(unique_ids("dev", ids)) == len(ids)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"),
     ("CMYK", "TIFF"), ("LA", "PNG"), ("I;16", "PNG")],
)  # fmt: skip
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = open_image(fixtures.picture("L" if mode == "I;16" else mode, kind=kind))
    if mode == "I;16":
        image = image.convert("I").point(lambda value: value * 257).convert("I;16")
    rgb = as_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (24, 16))
    assert np.asarray(rgb)[0, 0].min() > 250  # white stays white


@pytest.mark.parametrize("most", [4095, 65535])
def test_grey_values_of_16_bits_are_scaled(most: int) -> None:
    values = [0, most // 2, most]
    file = b"P5 3 1 %d\n" % most + b"".join(value.to_bytes(2, "big") for value in values)
    grey = np.asarray(as_rgb(open_image(file)))[0, :, 0]
    assert grey.tolist() == [0, 127, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_grey_values_of_no_known_range_are_a_bad_sample(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (2, 2), 1).save(file, "TIFF")
    for image in (open_image(file.getvalue()), Image.new(mode, (2, 2), 1)):
        with pytest.raises(BadSample, match="which have no known range: save it with 8 bits"):
            as_rgb(image)


def test_what_is_transparent_becomes_white() -> None:
    assert as_rgb(open_image(fixtures.picture("RGBA"))).getcolors() == [(384, (255, 255, 255))]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=0)
    rgb = as_rgb(open_image(buffer.getvalue()))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_a_photograph_is_turned_as_its_exif_data_say():
    stored = Image.new("RGB", (48, 32), "white")
    stored.paste("black", (0, 0, 16, 16))  # the upper left of what the sensor saw
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a viewer turns it a quarter to the right
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", exif=exif, quality=95)
    rgb = as_rgb(open_image(buffer.getvalue()))
    assert rgb.size == (32, 48)
    pixels = np.asarray(rgb)
    assert pixels[4, 28].max() < 60
    assert pixels[4, 4].min() > 200


def test_a_long_side_stays_undecoded_until_it_is_used() -> None:
    image = open_image(fixtures.picture("L", (10_000, 50)))
    assert getattr(image, "_im", None) is None
    assert as_rgb(image).size == (10_000, 50)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_truncated_images_are_bad_samples(kind: str) -> None:
    data = fixtures.picture(size=(200, 200), kind=kind)
    with pytest.raises(BadSample, match="image"):
        as_rgb(open_image(data[: len(data) // 2]))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_bad_sample(data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"BM", b"II*\0"):
        with pytest.raises(BadSample):
            as_rgb(open_image(start + data))


def test_postscript_is_not_tried() -> None:
    with pytest.raises(BadSample, match="not an image"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_half_a_surrogate_pair_is_a_bad_sample() -> None:
    with pytest.raises(BadSample, match="not Unicode"):
        Sample("1", (), "\ud800", (Piece("text", text="\ud800"),))


def test_letters() -> None:
    assert Sample("1", (), "?", (), options=("a", "b")).letters == ("A", "B")
    odd = Sample("1", (), "?", (), options=("a", "b"), option_letters=("A", "C"))
    assert odd.letters == ("A", "C")


def test_a_plain_prompt_shows_its_images_first() -> None:
    prompt = image_then_question("which?", images=2)
    assert [(piece.kind, piece.image) for piece in prompt[:2]] == [("image", 0), ("image", 1)]
    assert (prompt[2].kind, prompt[2].role, prompt[2].text) == ("text", "question", "which?")


@pytest.mark.parametrize(
    ("size", "count", "reason"),
    [
        ((8000, 6251), 1, "the image is too large: 50,008,000 pixels"),
        ((5001, 5000), 2, "the images together are too large: 50,010,000 pixels"),
        ((201, 1), 1, "the image is too narrow: 201 x 1 pixels"),
        ((1, 401), 1, "too narrow"),
        ((0, 5), 1, "has no pixels"),
    ],
)
def test_images_of_a_size_that_is_not_read(size: tuple[int, int], count: int, reason: str) -> None:
    images = tuple(Image.new("1", size) for _ in range(count))
    with pytest.raises(BadSample, match=reason):
        Sample("a", images, "q", image_then_question("q"))


def test_images_at_the_limits_are_read() -> None:
    for size in ((1, 1), (200, 1), (8000, 6250)):
        Sample("a", (Image.new("1", size),), "q", image_then_question("q"))


def test_the_size_is_known_before_an_image_is_decoded() -> None:
    with pytest.raises(BadSample, match="144,000,000 pixels"):
        open_image(fixtures.bomb(12_000))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_a_bad_sample(kind: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "green")]
    data = io.BytesIO()
    frames[0].save(data, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadSample, match=f"the {kind} has several frames"):
        open_image(data.getvalue())
