"""Videos: positions of a video are labelled with their frame, row and column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import BadSample, Piece, Sample
from keygap.models.load import wrap
from keygap.models.patches.layout import ImageFacts
from keygap.models.prompting.image_inputs import ImageTokens
from keygap.models.prompting.labelling import VideoFacts, frames_of, written_order
from keygap.selfcheck.check import check
from keygap.selfcheck.samples import FRAMES
from made import bench_of

from .zoo import BY_FAMILY


def film(name: str, pictures: int = 4) -> Sample:
    frames = np.random.default_rng(0).integers(0, 256, (pictures, 48, 64, 3), dtype=np.uint8)
    prompt = (
        Piece("text", text="First a picture "),
        Piece("image"),
        Piece("text", text=" and then a film: "),
        Piece("video"),
        Piece("text", text="What moves in it?"),
    )
    return Sample(
        name,
        (Image.fromarray(frames[0]),),
        "What moves in it?",
        prompt,
        videos=(tuple(Image.fromarray(frame) for frame in frames),),
    )


@pytest.mark.parametrize(
    "family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"]
)
def test_pixels_of_a_video_change_the_positions_labelled_as_its(family):
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    found = {finding.check: finding for finding in check(vlm)}["frames of a video"]
    assert found.passed, found.detail
    merged = 2 if family.startswith("qwen") else 1  # pictures that the model joins
    assert f"{FRAMES // merged} frames of {FRAMES} pictures" in found.detail


def test_a_picture_and_a_film_in_one_prompt():
    vlm = wrap(*BY_FAMILY["qwen2_5_vl"].build(), name="tiny")
    (labels,) = vlm.prompter([film("f")]).labels
    image, video = (labels.modality == kind for kind in ("image", "video"))
    # 48 x 64 pixels in patches of 8, merged two by two: 3 rows of 4, and two pictures are a frame
    grid = [(row, column) for row in range(3) for column in range(4)]
    places = np.stack([labels.patch_row, labels.patch_column], 1)
    assert [tuple(place) for place in places[image]] == grid
    assert [tuple(place) for place in places[video]] == grid * 2
    assert labels.frame[video].tolist() == [0] * 12 + [1] * 12
    assert set(labels.frame[~video]) == {-1}
    assert set(labels.image[image]) == {0}
    assert set(labels.image[video]) == {1}
    assert np.flatnonzero(image).max() < np.flatnonzero(video).min()


EACH = "{{% for c in m.content %}}{{% if c.type == '{}' %}}{}{{% endif %}}{{% endfor %}}"
IMAGES_FIRST = (  # then videos, then text
    "{% for m in messages %}USER: "
    + EACH.format("image", "IMAGE\n")
    + EACH.format("video", "VIDEO\n")
    + EACH.format("text", "{{ c.text }}")
    + "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "internvl"])
def test_a_template_that_writes_images_first_swaps_no_labels(family):
    """The film comes after the picture in the prompt, and keeps its number in the sample."""
    entry = BY_FAMILY[family]
    vlm = wrap(*replace(entry, template=IMAGES_FIRST).build(), name="tiny")
    picture, video, text = Piece("image"), Piece("video"), Piece("text", text="What moves?")
    first, second = (
        vlm.prompter([replace(film("f"), prompt=(*pieces, text))])
        for pieces in ((picture, video), (video, picture))
    )
    assert first.inputs["input_ids"].equal(second.inputs["input_ids"])
    one, other = first.labels[0], second.labels[0]
    assert set(one.modality[one.image == 0]) - {"text"} == {"image"}
    assert one.image.max() == 1
    assert other.image.tolist() == [[1, 0][image] if image >= 0 else -1 for image in one.image]
    assert other.grids == one.grids[::-1]
    for name in ("modality", "role", "frame", "patch_row", "patch_column"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_the_order_in_which_placeholders_are_written():
    """Where they are not one for each image and video, the order is that of the sample."""
    known = ImageTokens((1,), "<image>", (2,), "<video>")
    facts: list[ImageFacts | VideoFacts] = [VideoFacts(2), ImageFacts(32, 32), ImageFacts(32, 32)]
    assert written_order("<image> <image> <video>", facts, known) == [1, 2, 0]
    assert written_order("<video> <image>", facts, known) == [0, 1, 2]


def test_a_film_is_extracted_and_measured_as_images_are(tmp_path):
    vlm = wrap(*BY_FAMILY["qwen2_vl"].build(), name="tiny")
    samples = [film(f"f{number}", pictures=2 + 2 * (number % 2)) for number in range(8)]
    store = kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[1], batch_size=3)
    video = store.vectors("k_proj", 1, modality="video")
    assert sorted(set(video.labels["frame"])) == [0, 1]
    table = kg.measure(store, contrasts=["image_text"], n_permutations=20, n_bootstraps=20)
    row = table.main.query("contrast == 'image_text' and head == 'all'").iloc[0]
    assert row["n_a"] == sum(12 * (1 + count // 2) for count in (2, 4) * 4)


def test_a_processor_without_videos_makes_a_bad_sample():
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny")
    with pytest.raises(BadSample, match="takes no video"):
        vlm.prompter([film("f")])


def test_what_is_not_known_of_a_video_is_not_guessed():
    places, frame = frames_of(30, VideoFacts(frames=4))
    assert set(frame) == set(places.row) == {-1}
    places, frame = frames_of(4 * 9 + 1, VideoFacts(frames=4))
    assert places.role[-1] == "separator"
    assert frame.tolist() == [*np.repeat(range(4), 9), -1]
