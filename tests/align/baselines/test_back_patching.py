"""Back-patching is two passes by hand, and what reads the second sees nothing of the first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from keygap.align.baselines.attention_bias import attention_bias
from keygap.align.baselines.back_patching import back_patching
from keygap.bias.attention_pass import read_calls
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY

from .by_hand import given, images, logits, tiny


def two_passes(vlm, batch, pairs):
    """Logits of a second pass, in which hooks write what the first pass had late."""
    late, handles = {}, []
    for source, _ in pairs:

        def keep(module, arguments, source=source):
            late[source] = arguments[0].clone()

        handles.append(vlm.layers[source].block.register_forward_pre_hook(keep))
    logits(vlm, batch)
    for handle in handles:
        handle.remove()
    handles = []
    for source, target in pairs:

        def write(module, arguments, source=source):
            hidden = arguments[0].clone()
            for row, labels in enumerate(batch.labels):
                hidden[row, images(labels)] = late[source][row, images(labels)]
            return (hidden, *arguments[1:])

        handles.append(vlm.layers[target].block.register_forward_pre_hook(write))
    found = logits(vlm, batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.parametrize(("source", "target"), [(2, 1), (2, 0), (1, 0)])
def test_it_is_two_passes_by_hand(family, source, target):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    expected = two_passes(vlm, batch, [(source, target)])
    with vlm.interventions.applied(back_patching(source=source, target=target)):
        assert torch.equal(logits(vlm, batch), expected)
    assert not torch.allclose(expected, plain, atol=1e-2)
    assert torch.equal(logits(vlm, batch), plain)


def test_a_window_patches_neighbours_too():
    entry = BY_FAMILY["llava"]
    deep = replace(entry, config={**entry.config, "text_config__num_hidden_layers": 6})
    vlm = wrap(*deep.build(), name="tiny llava of six layers")
    batch = vlm.prompter(check_samples())
    expected = two_passes(vlm, batch, [(3, 0), (4, 1), (5, 2)])
    wide = back_patching(source=4, target=1, window=3)
    with vlm.interventions.applied(wide):
        assert torch.equal(logits(vlm, batch), expected)
    assert wide.identity()["layers"] == [0, 1, 2]
    assert wide.identity()["sources"] == [3, 4, 5]


def test_other_interventions_act_in_the_first_pass():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    bias = attention_bias(layers=[0, 1, 2], nats=3, queries="all")
    patch = back_patching(source=2, target=1)
    with vlm.interventions.applied(bias):
        expected = two_passes(vlm, batch, [(2, 1)])
    for order in ((bias, patch), (patch, bias)):
        with vlm.interventions.applied(*order):
            torch.testing.assert_close(logits(vlm, batch), expected, atol=1e-6, rtol=1e-6)


def test_first_passes_of_two_are_without_either():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    patches = [back_patching(source=2, target=0), back_patching(source=2, target=1)]
    with vlm.interventions.applied(*patches):
        found = logits(vlm, batch)
    assert torch.equal(found, two_passes(vlm, batch, [(2, 0), (2, 1)]))


@pytest.mark.parametrize("site", ["key", "k_proj", "hidden"])
def test_a_capture_reads_the_second_pass(site):
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    with Capture(vlm, ["hidden"], [0, 2]) as capture:
        plain = capture(batch)
    patch = back_patching(source=2, target=0)
    sites = list({site: None, "hidden": None})
    captures = [Capture(vlm, sites, [0, 1], attention=True) for _ in range(2)]
    found = []
    with captures[0] as early, vlm.interventions.applied(patch), captures[1] as late:
        found += [early(batch), late(batch)]
    for key, values in found[0].items():
        assert torch.equal(values, found[1][key])
    for row, labels in enumerate(batch.labels):
        own = found[0]["hidden", 0][row, : len(labels)]
        image = torch.zeros(len(labels), dtype=torch.bool)
        image[images(labels)] = True
        assert torch.equal(own[image], plain["hidden", 2][row, : len(labels)][image])
        assert torch.equal(own[~image], plain["hidden", 0][row, : len(labels)][~image])


def test_attention_is_read_in_the_second_pass():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    read = {}
    plain = given(vlm, batch)
    with vlm.interventions.applied(back_patching(source=2, target=1)):
        read_calls(vlm, batch, [0, 1], lambda layer, call: read.update({layer.index: call.key}))
    assert torch.equal(read[0], plain[0].key)
    assert not torch.allclose(read[1], plain[1].key, atol=1e-2)


def test_generated_tokens_follow_a_patched_prompt():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    with vlm.interventions.applied(back_patching(source=2, target=1)):
        whole = logits(vlm, batch)[0, -1]
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(cached.logits[0][0], whole, atol=1e-4, rtol=1e-3)


def test_a_model_without_image_positions_is_refused():
    vlm = tiny("mllama")
    with (
        vlm.interventions.applied(back_patching(source=2, target=0)),
        pytest.raises(UserError, match="are not positions of the prompt of tiny mllama"),
    ):
        logits(vlm, vlm.prompter(check_samples()))


def test_a_source_that_does_not_exist_is_one_line():
    vlm = tiny("llava")
    plain = logits(vlm, vlm.prompter(check_samples()))
    with (
        vlm.interventions.applied(back_patching(source=3, target=0)),
        pytest.raises(UserError, match=r"reads before layer 3: tiny llava has 3 layers \(0 to 2\)"),
    ):
        logits(vlm, vlm.prompter(check_samples()))
    assert torch.equal(logits(vlm, vlm.prompter(check_samples())), plain)


def test_identity_has_all_that_decides():
    assert back_patching(source=7, target=3).identity() == {
        "name": "back-patching",
        "layers": [3],
        "sites": ["hidden"],
        "sources": [7],
    }
