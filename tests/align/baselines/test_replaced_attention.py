"""Replaced weights depend on what a query sees and not on what it looks for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from keygap.align.baselines.replaced_attention import gaussian, replaced_attention
from keygap.models.positions import Tokens
from keygap.selfcheck.samples import check_samples

from .by_hand import assert_attends, chosen, given, logits, softmax, tiny


def positions(start, count):
    return Tokens(None, 1, start, count, torch.device("cpu"))


def drawn(seed=0, layer=0, heads=4, queries=(0, 64), keys=(0, 64)):
    return gaussian(seed, layer, heads, positions(*queries), positions(*keys))


@pytest.mark.parametrize("queries", ["text", "all"])
@pytest.mark.parametrize("weights", ["even", "random"])
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_attention_is_even_or_the_softmax_of_the_drawn_logits(family, weights, queries):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples())
    for layer in (0, 2):
        mine = given(vlm, batch)[layer]
        products = mine.products
        width = products.shape[-1]
        new = torch.zeros(4, width, width, dtype=torch.float64)
        if weights == "random":
            new = 2.5 * drawn(7, layer, 4, (0, width), (0, width)).double()
        for row, labels in enumerate(batch.labels):
            for query in chosen(labels, queries):
                products[row, :, query] = new[:, query]
        own = softmax(products, mine.seen)
        if weights == "even":
            (query, *_) = chosen(batch.labels[1], "text")[-1:]
            seen = mine.seen[1, 0, query]
            assert own[1, 0, query, seen].unique().tolist() == pytest.approx([1 / int(seen.sum())])
        with vlm.interventions.applied(
            replaced_attention(layers=[layer], weights=weights, queries=queries, spread=2.5, seed=7)
        ):
            assert_attends(vlm, batch, layer, own, mine)


def test_drawn_logits_are_independent_standard_normal_numbers():
    found = drawn(heads=8, queries=(0, 128), keys=(0, 128)).double().numpy()
    assert stats.kstest(found.ravel(), "norm").pvalue > 0.01
    for axis in range(3):
        one = np.moveaxis(found, axis, 0)
        assert abs(np.corrcoef(one[:-1].ravel(), one[1:].ravel())[0, 1]) < 0.01
    for other in (drawn(seed=1, heads=8), drawn(layer=1, heads=8)):
        mine = found[:, :64, :64]
        assert abs(np.corrcoef(mine.ravel(), other.numpy().ravel())[0, 1]) < 0.02


def test_drawn_logits_depend_on_positions_alone():
    whole = drawn(seed=3, layer=5)
    assert torch.equal(drawn(3, 5, 2, (40, 10), (0, 50)), whole[:2, 40:50, :50])
    assert torch.equal(drawn(3, 5, 4, (63, 1), (60, 4)), whole[:, 63:, 60:])


def test_a_seed_is_one_draw():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    found = []
    for seed in (0, 0, 1):
        with vlm.interventions.applied(
            replaced_attention(layers=[0, 1, 2], weights="random", seed=seed)
        ):
            found.append(logits(vlm, batch))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-2)


def test_random_weights_without_spread_are_even():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    found = []
    for settings in ({"weights": "even"}, {"weights": "random", "spread": 0}):
        with vlm.interventions.applied(replaced_attention(layers=[0, 2], **settings)):
            found.append(logits(vlm, batch))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


def test_identity_has_all_that_decides():
    even = replaced_attention(layers=[1], seed=4).identity()
    assert even == {
        "name": "replaced-attention",
        "layers": [1],
        "sites": ["attention"],
        "weights": "even",
        "queries": ["text"],
    }
    random = replaced_attention(layers=[1], weights="random", seed=4, spread=2).identity()
    assert random == {**even, "weights": "random", "spread": 2.0, "seed": 4}
