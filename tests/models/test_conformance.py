"""Every family of the zoo passes the self-check that users run on their own models."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AttentionInterface

from keygap.benchmarks import Piece, Sample
from keygap.capture.hooks import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.check import check, summary
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY, ZOO
from .zoo_refused import REFUSED

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
FAST = [entry.family for entry in ZOO if not entry.slow]
SLOW = [entry.family for entry in ZOO if entry.slow]


def vlm_of(family: str):
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


def assert_reads(family: str) -> None:
    wrong = [finding for finding in check(vlm_of(family)) if finding.passed is False]
    assert not wrong


def test_the_pinned_transformers_has_every_family_of_the_zoo():
    """A family that is skipped by mistake would be a test that cannot fail."""
    pinned = re.search(r"^transformers==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert pinned is not None
    if transformers.__version__ != pinned[1]:
        pytest.skip("this is not the pinned release")
    assert [entry.family for entry in (*ZOO, *REFUSED) if not entry.exists] == []


@pytest.mark.parametrize("family", FAST)
def test_family_passes_its_self_check(family):
    assert_reads(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_further_family_passes_its_self_check(family):
    assert_reads(family)


@pytest.mark.parametrize("family", [entry.family for entry in REFUSED])
def test_what_cannot_be_compared_is_refused_in_one_line(family):
    with pytest.raises(UserError) as refusal:
        check(vlm_of(family))
    message = str(refusal.value)
    assert BY_FAMILY[family].fails in message
    assert family in message
    assert "\n" not in message


@pytest.mark.parametrize("sites", [["k_proj", "key", "hidden"], ["q_proj", "query", "value"]])
@pytest.mark.parametrize("family", ["llava", "florence2"])
def test_nothing_captured_outlives_its_capture(family, sites):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    with Capture(vlm, sites, [0, 2], attention=True) as capture:
        read = capture(batch)
        watched = [weakref.ref(vectors) for vectors in read.values()]
    del read
    gc.collect()
    assert not any(watch() is not None for watch in watched)


@pytest.mark.parametrize("site", ["k_proj", "key", "hidden"])
def test_an_exception_in_the_middle_leaves_nothing(site):
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    functions = dict(AttentionInterface._global_mapping)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.decoder.modules()]
    watched: list[weakref.ref] = []

    def fail(module, arguments, output):
        watched.extend(weakref.ref(vectors) for vectors in capture._read.values())
        raise MemoryError("in the middle")

    handle = vlm.layers[1].block.register_forward_hook(fail)
    with pytest.raises(MemoryError), Capture(vlm, [site], [0, 2]) as capture:
        capture(batch)
    handle.remove()
    gc.collect()
    assert watched
    assert not any(watch() is not None for watch in watched)
    assert dict(AttentionInterface._global_mapping) == functions
    assert hooks == [
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.decoder.modules()
    ]


def test_eager_attention_is_read_too():
    vlm = vlm_of("qwen2_5_vl")
    batch = vlm.prompter(check_samples())
    with Capture(vlm, ["key"], [1]) as capture:
        sdpa = capture(batch)["key", 1]
    vlm.model.set_attn_implementation("eager")
    with Capture(vlm, ["key"], [1]) as capture:
        eager = capture(batch)["key", 1]
    torch.testing.assert_close(sdpa, eager)
    assert "eager" not in AttentionInterface._global_mapping


def test_grouped_heads_stay_apart():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    with Capture(vlm, ["q_proj", "k_proj", "key", "query"], [0]) as capture:
        read = capture(batch)
    assert {site: tuple(vectors.shape[-2:]) for (site, _), vectors in read.items()} == {
        "q_proj": (4, 16),
        "k_proj": (2, 16),
        "key": (2, 16),
        "query": (4, 16),
    }


def test_latent_attention_says_what_to_read_instead():
    vlm = vlm_of("kimi_k25")
    with (
        pytest.raises(ValueError, match=r"latent \(MLA\); read the site key"),
        Capture(vlm, ["k_proj"], [0]),
    ):
        pass


def test_layers_without_attention_are_named_and_not_chosen():
    vlm = vlm_of("qwen3_5")
    assert [layer.attends for layer in vlm.layers] == ["none", "none", "self"]
    assert vlm.layer_indices(["first", "middle", "last"]) == [2]
    with pytest.raises(ValueError, match="layer 0 of tiny qwen3_5 has no attention"):
        vlm.layer_indices([0])


def test_a_layer_name_means_one_of_each_kind():
    vlm = vlm_of("mllama")
    assert [layer.attends for layer in vlm.layers] == ["self", "cross", "self", "cross"]
    assert vlm.layer_indices(["first"]) == [0, 1]
    assert vlm.layer_indices(["last", 0]) == [0, 2, 3]
    assert vlm.layer_indices(["all"]) == [0, 1, 2, 3]


def places(family: str, number: int = 0) -> list[tuple[str, int, int]]:
    vlm = vlm_of(family)
    labels = vlm.prompter(check_samples()).labels[number]
    image = labels.modality == "image"
    return list(
        zip(
            labels.role[image],
            labels.patch_row[image].tolist(),
            labels.patch_column[image].tolist(),
            strict=True,
        )
    )


def test_native_resolution_rows_and_columns():
    # 64 x 48 pixels, patches of 8, 2 x 2 merged: 3 rows of 4
    expected = [("", row, column) for row in range(3) for column in range(4)]
    assert places("qwen2_5_vl") == expected
    assert places("mistral3") == expected


def test_anyres_has_a_base_view_and_row_separators():
    found = places("llava_next")
    base = [("thumbnail", row, column) for row in range(4) for column in range(4)]
    assert found[:16] == base
    # 64 x 48 on a canvas of 64 x 64, the padding cut off: 6 rows of 8, each with its end
    rows = [
        [*(("", row, column) for column in range(8)), ("separator", -1, -1)] for row in range(6)
    ]
    assert found[16:] == [place for row in rows for place in row]


def test_tiles_count_rows_and_columns_through_the_image():
    found = places("idefics3")
    grid = {place[1:] for place in found if place[0] == ""}
    assert grid == {(row, column) for row in range(4) for column in range(4)}
    assert sum(place[0] == "thumbnail" for place in found) == 4


def test_resampled_positions_are_no_patches():
    assert set(places("idefics2")) == {("", -1, -1)}


def test_default_system_prompt_has_its_role():
    vlm = vlm_of("qwen2_5_vl")
    (labels,) = vlm.prompter(check_samples()[:1]).labels
    system = "".join(labels.token[labels.role == "system"]).replace("Ġ", " ")
    assert system == "You are a helpful assistant."


def test_placeholder_in_a_text_is_text():
    vlm = vlm_of("llava")
    (sample, _) = check_samples()
    text = "What does <image> mean?"
    spelled = Sample(sample.id, sample.images, text, (Piece("image"), Piece("text", text=text)))
    (labels,) = vlm.prompter([spelled]).labels
    assert vlm.processor.tokenizer.decode(labels.token_id[labels.role == "question"]) == text
    (plain,) = vlm.prompter([sample]).labels
    assert (labels.modality == "image").sum() == (plain.modality == "image").sum()


def test_several_images_and_text_between_them():
    vlm = vlm_of("llava_next")
    one, two = check_samples()
    prompt = (
        Piece("text", text="First "),
        Piece("image"),
        Piece("text", "option", "A. this "),
        Piece("image", image=1),
        Piece("text", "option", "B. that"),
    )
    (labels,) = vlm.prompter([Sample("s", (*one.images, *two.images), "q", prompt)]).labels
    order: list[str] = []
    for image, role in zip(labels.image, labels.role, strict=True):
        name = f"image {image}" if image >= 0 else role
        if name != "template" and (not order or order[-1] != name):
            order.append(name)
    assert order == ["question", "image 0", "option", "image 1", "option"]


def test_sliding_windows_are_named():
    vlm = vlm_of("gemma3")
    window = vlm.model.config.text_config.sliding_window
    assert [layer.window for layer in vlm.layers] == [window, window, None]
    assert f"2 of them with a sliding window of {window}" in summary(vlm)
