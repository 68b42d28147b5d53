"""The attention map: which token, which patches, on which part of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import keygap as kg
from bias.eager import eager_weights
from keygap.benchmarks import Piece, Sample
from keygap.bias.map_reading import named_token
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples, sample_of_a_video, sample_of_two_images
from made import made_sample
from models import offline
from models.entry import CLIP_IMAGE
from models.zoo import BY_FAMILY


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


@pytest.fixture(scope="module")
def llava() -> kg.VLM:
    return vlm_of("llava")


@pytest.fixture(scope="module")
def qwen() -> kg.VLM:
    return vlm_of("qwen2_5_vl")


def test_values_are_the_eager_weights_of_the_patches(qwen):
    sample = check_samples()[0]
    labels = qwen.prompter([sample]).labels[0]
    place = len(labels) - 3
    found = kg.attention_map(qwen, sample, token=place, layers=[0, 2], heads=[1, 3])
    own = vlm_of("qwen2_5_vl")
    weights = eager_weights(own, own.prompter([sample]))
    mean = torch.stack([weights[layer][0, [1, 3], place] for layer in (0, 2)]).mean((0, 1))
    image = labels.modality == "image"
    assert found.values.shape == (3, 4)
    np.testing.assert_allclose(found.values.ravel(), mean.numpy()[image], atol=1e-6)
    assert found.layers == (0, 2)


def test_the_last_position_is_the_default(qwen):
    sample = check_samples()[0]
    last = len(qwen.prompter([sample]).labels[0]) - 1
    one, other = (kg.attention_map(qwen, sample, token=token) for token in ("last", last))
    np.testing.assert_array_equal(one.values, other.values)


def test_a_word_of_several_tokens_is_found(llava):
    sample = check_samples()[1]
    labels = llava.prompter([sample]).labels[0]
    found = kg.attention_map(llava, sample, token="red circle")
    assert found.token == "red circle"
    text = llava.prompter.tokenizer
    asked = np.flatnonzero(labels.role == "question").tolist()
    spans = [
        range(first, last + 1)
        for first in asked
        for last in asked
        if text.decode(labels.token_id[first : last + 1]).strip() == "red circle"
    ]
    shortest = min(spans, key=len)
    each = [kg.attention_map(llava, sample, token=place).values for place in shortest]
    np.testing.assert_allclose(found.values, np.mean(each, 0), atol=1e-6)


@pytest.mark.parametrize("words", ["红色", "红", "竖条"])
def test_a_word_whose_tokens_are_parts_of_characters_is_found(vlm, words):
    sample = made_sample("one", "红色的竖条是什么？")
    labels = vlm.prompter([sample]).labels[0]
    places, text = named_token(vlm, labels, words)
    assert text == words
    assert vlm.prompter.tokenizer.decode(labels.token_id[places]).strip() == words
    assert (labels.role[places] == "question").all()
    assert len(places) > len(words)  # some are parts of a character
    with pytest.raises(UserError, match="no tokens of the prompt spell it"):
        named_token(vlm, labels, "蓝色")


def test_the_question_comes_before_other_text(llava):
    sample = check_samples()[0]
    twice = replace(sample, prompt=(Piece("text", "hint", "red colour. "), *sample.prompt))
    labels = llava.prompter([twice]).labels[0]
    found = kg.attention_map(llava, twice, token="colour")
    (place,) = [
        place
        for place in np.flatnonzero(labels.role == "question").tolist()
        if llava.prompter.tokenizer.decode([labels.token_id[place]]).strip() == "colour"
    ]
    own = kg.attention_map(llava, twice, token=place)
    np.testing.assert_array_equal(found.values, own.values)


def test_each_image_and_frame_has_its_own_map(qwen):
    pair = sample_of_two_images()
    first, second = (kg.attention_map(qwen, pair, image=number) for number in (0, 1))
    assert (first.picture.size, second.picture.size) == ((64, 48), (48, 64))
    assert (first.values.shape, second.values.shape) == ((3, 4), (4, 3))
    film = sample_of_a_video()
    frames = [kg.attention_map(qwen, film, frame=number) for number in (0, 1)]
    assert not np.array_equal(frames[0].values, frames[1].values)
    # the model joins two of the four pictures: its second begins with the third
    expected = np.asarray(film.videos[0][2])
    np.testing.assert_array_equal(np.asarray(frames[1].picture), expected)


def test_a_cut_picture_is_covered_in_part():
    """CLIP scales the shorter side and cuts a square out of the middle, if it is told to."""
    entry = BY_FAMILY["llava"]
    image = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    }
    vlm = wrap(*replace(entry, image=image).build(), name="tiny llava that cuts")
    wide = replace(made_sample("wide"), images=(Image.new("RGB", (128, 64), "red"),))
    left, top, right, bottom = kg.attention_map(vlm, wide).region
    assert (left, right) == pytest.approx((32, 96), abs=1)
    assert (top, bottom) == pytest.approx((0, 64), abs=1)


def made_picture(width: int, height: int) -> Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return replace(made_sample("one"), images=(Image.fromarray(pixels),))


@pytest.mark.parametrize(
    ("family", "size", "shape", "region"),
    [
        # tiles of the whole picture, though the processor says that it cuts off what is outside
        ("llava_next", (128, 64), (4, 8), (0, 0, 128, 64)),
        ("llava_next", (64, 128), (8, 4), (0, 0, 64, 128)),
        # bars above and below, or at both sides
        ("llava_next", (32, 24), (4, 4), (0, -4, 32, 28)),
        ("janus", (128, 64), (4, 4), (0, -32, 128, 96)),
        ("janus", (64, 128), (4, 4), (-32, 0, 96, 128)),
        # keys of layers that attend across have no grid
        ("mllama", (32, 32), (4, 4), (0, 0, 32, 32)),
        ("mllama", (32, 24), (3, 4), (0, 0, 32, 24)),
    ],
)
def test_values_lie_on_the_grid_of_the_patches(family, size, shape, region):
    vlm = vlm_of(family)
    sample = made_picture(*size)
    found = kg.attention_map(vlm, sample)
    assert found.values.shape == shape
    assert found.region == pytest.approx(region, abs=0.01)
    labels = vlm.prompter([sample]).labels[0]
    if not labels.grids[0]:
        assert np.isfinite(found.values).all()
        return
    shown = (labels.image == 0) & (labels.role == "")
    places = np.zeros(shape, dtype=bool)
    places[labels.patch_row[shown], labels.patch_column[shown]] = True
    np.testing.assert_array_equal(np.isfinite(found.values), places)


def test_of_a_cut_video_the_square_in_the_middle_is_covered():
    """The grid of a video does not say what its processor cuts off."""
    cutting = {**CLIP_IMAGE, "do_center_crop": True}
    entry = replace(BY_FAMILY["llava_next_video"], template=offline.CHATML, video=cutting)
    found = kg.attention_map(wrap(*entry.build(), name="tiny"), sample_of_a_video(), frame=1)
    assert found.values.shape == (2, 2)
    assert found.region == (8, 0, 56, 48)


def test_interventions_are_seen(llava):
    with kg.mask(llava, "image"):
        found = kg.attention_map(llava, check_samples()[0])
    assert (found.values == 0).all()


def test_sinks_can_be_left_out(vlm, easy_vqa):
    sample = easy_vqa.sample(0)
    with_sinks = kg.attention_map(vlm, sample, layers="middle")
    without = kg.attention_map(vlm, sample, layers="middle", sinks=False)
    kept = np.isfinite(without.values)
    np.testing.assert_array_equal(with_sinks.values[kept], without.values[kept])
    assert with_sinks.values.shape == (4, 4)


def test_the_figure_is_saved(llava, tmp_path):
    path = tmp_path / "map.png"
    found = kg.attention_map(llava, check_samples()[0], token="colour", out=path)
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    axes = found.figure(smooth=True).axes[0]
    assert "'colour', layers 0-2, all heads" in axes.get_title()
    # the square in the middle, measured with a chart
    assert axes.images[1].get_extent() == pytest.approx([8, 56, 48, 0], abs=1.1)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 64), (48, 0))
    with pytest.raises(UserError, match="cannot be written to"):
        found.save(tmp_path / "map.docx")
    with pytest.raises(UserError, match="cannot be written to"):
        found.save(tmp_path / "nowhere" / "map.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "elephant"}, "'elephant': no tokens of the prompt spell it"),
        ({"token": 5000}, "token 5000: the prompt has the positions 0 to"),
        ({"image": 1}, "image 1: the prompt of 0 shows 1"),
        ({"heads": 4}, "a head is 4: at most 3 is possible"),
        ({"layers": 7}, "layer 7 is out of range"),
    ],
)
def test_what_does_not_exist_is_refused(llava, arguments, message):
    with pytest.raises(UserError, match=message) as refusal:
        kg.attention_map(llava, check_samples()[0], **arguments)
    assert "\n" not in str(refusal.value)


def test_positions_that_are_no_patches_are_refused():
    with pytest.raises(UserError, match="no position that is a patch of image 0"):
        kg.attention_map(vlm_of("idefics2"), check_samples()[0])


def test_a_bad_sample_is_refused(llava):
    bad = replace(check_samples()[0], images=())
    with pytest.raises(UserError, match="sample 0 cannot be used: the sample has no image"):
        kg.attention_map(llava, bad)


def test_a_frame_that_the_model_does_not_see_is_refused(qwen):
    with pytest.raises(UserError, match="frame 2: the model sees 2 pictures"):
        kg.attention_map(qwen, sample_of_a_video(), frame=2)
