"""A constant on image logits multiplies the odds of image keys, for the chosen queries alone."""

from __future__ import annotations

import pytest
import torch

from bias.eager import eager_weights
from keygap.align.baselines.attention_bias import attention_bias
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY

from .by_hand import assert_attends, chosen, given, images, logits, softmax, tiny


def expected(batch, mine, nats, queries):
    """Weights by the formula."""
    products = mine.products
    for row, labels in enumerate(batch.labels):
        for query in chosen(labels, queries):
            products[row, :, query, images(labels)] += nats
    return softmax(products, mine.seen)


@pytest.mark.parametrize("queries", ["text", "all", "current", "question"])
@pytest.mark.parametrize("nats", [1.5, -3.0])
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_attention_is_that_of_the_formula(family, nats, queries):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples())
    for layer in (0, 2):
        mine = given(vlm, batch)[layer]
        with vlm.interventions.applied(attention_bias(layers=[layer], nats=nats, queries=queries)):
            assert_attends(vlm, batch, layer, expected(batch, mine, nats, queries), mine)


def test_weights_of_eager_attention_are_those_of_the_formula():
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny llava")
    batch = vlm.prompter(check_samples())
    mine = given(vlm, batch)[1]
    with vlm.interventions.applied(attention_bias(layers=[1], nats=2.0)):
        found = eager_weights(vlm, batch)[1]
    by_formula = expected(batch, mine, 2.0, "text")
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        torch.testing.assert_close(found[row, :, :size].double(), by_formula[row, :, :size])


def test_no_bias_changes_no_bit():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with vlm.interventions.applied(attention_bias(layers=[0, 1, 2], nats=0)):
        assert torch.equal(logits(vlm, batch), plain)


def test_a_bias_of_nothing_but_image_keys_is_refused():
    vlm = tiny("mllama")
    cross = vlm.indices("cross")[0]
    with (
        vlm.interventions.applied(attention_bias(layers=[cross])),
        pytest.raises(UserError, match=f"layer {cross} attends to image features alone"),
    ):
        logits(vlm, vlm.prompter(check_samples()))


def test_identity_has_all_that_decides():
    assert attention_bias(layers=[3, 1], nats=2, queries=["question", "hint"]).identity() == {
        "name": "attention-bias",
        "layers": [3, 1],
        "sites": ["attention"],
        "nats": 2.0,
        "queries": ["question", "hint"],
    }
