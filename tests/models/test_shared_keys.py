"""Layers that attend to the keys of an earlier layer are named, left out, and not refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import keygap as kg
from keygap.align.affine import Affine
from keygap.align.map import Map
from keygap.capture.hooks import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.attention import attention_recomputed
from keygap.selfcheck.check import summary
from keygap.selfcheck.extraction import notes_on
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY

TYPES = [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "sliding", "full")]
SHARING = {
    "text_config__num_hidden_layers": 5,
    "text_config__num_kv_shared_layers": 2,
    "text_config__layer_types": TYPES,
}


@pytest.fixture(scope="module", params=["gemma3n", "gemma4"])
def sharing(request) -> kg.VLM:
    """Five layers, of which the last two share: a sliding one with 2 and a full one with 1."""
    entry = BY_FAMILY[request.param]
    model, processor = replace(entry, config=entry.config | SHARING).build()
    return wrap(model, processor, name=f"tiny {request.param}")


def test_they_are_named_and_no_layer_name_means_them(sharing):
    assert sharing.shared == {3: 2, 4: 1}
    assert sharing.layer_indices(["all"]) == [0, 1, 2]
    assert sharing.layer_indices(["last"]) == [2]
    assert sharing.layer_indices(["all"], with_shared=True) == [0, 1, 2, 3, 4]
    assert "2 of them attend to the keys of earlier layers" in summary(sharing)
    assert "left out: 3 (those of 2), 4 (those of 1)" in notes_on(sharing, [0])[0]


@pytest.mark.parametrize("wanted", [4, "4"])
def test_asking_for_one_gives_one_line(sharing, wanted):
    with pytest.raises(UserError, match=r"layer 4 .* layer 1 and has none of its own: ask for"):
        sharing.layer_indices([wanted])
    with pytest.raises(UserError, match="layer 4 has no k_proj: it attends to the keys"):
        sharing.layers[4].projection("k_proj")


def test_their_keys_are_those_of_the_layer_that_is_named(sharing):
    batch = sharing.prompter(check_samples()[:1])
    with Capture(sharing, ["key", "value", "query"], range(5)) as capture:
        read = capture(batch)
    for layer, source in sharing.shared.items():
        assert torch.equal(read["key", layer], read["key", source])
        assert torch.equal(read["value", layer], read["value", source])
        assert not torch.equal(read["query", layer], read["query", source])


def test_a_layer_that_shares_without_saying_so_fails_the_self_check(sharing):
    layers = (*sharing.layers[:4], replace(sharing.layers[4], shares=None))
    silent = replace(sharing, layers=layers)
    result, detail = attention_recomputed(silent, silent.prompter(check_samples()[:1]))
    assert (result, detail[:46]) == ("FAIL", "layer 4 attends to the keys of layer 1, and is")


def test_no_query_of_a_shared_layer_sees_what_is_masked(sharing):
    batch = sharing.prompter(check_samples()[:1])
    with torch.no_grad():
        plain = sharing.forward(batch).logits
        with kg.mask(sharing, "image", layers=[4]):
            assert not torch.equal(sharing.forward(batch).logits, plain)


def test_attention_is_not_held_where_other_layers_use_the_keys(sharing):
    shift = {
        index: Affine(torch.ones(sharing.layers[index].key_heads, sharing.layers[index].head_dim))
        for index in (0, 1)
    }
    moved = Map("mean-shift", "k_proj", shift, {})
    kg.align.steering_of(sharing, moved, [1])
    kg.align.steering_of(sharing, moved, [0], mass="held")
    with pytest.raises(UserError, match=r"layer 4 .* attends to the keys of layer 1"):
        kg.align.steering_of(sharing, moved, [1], mass="held")
