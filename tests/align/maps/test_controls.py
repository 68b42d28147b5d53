"""Controls are as long as the mean shift, and do not point along it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from keygap.align.fitting import fit
from keygap.align.maps import MAPS
from keygap.errors import UserError

from ..made_vectors import context_of, planted, source

CONTROLS = ("random-direction", "shuffled-labels", "text-text")
GAP = np.array([40.0, 0, 0, 0, 0, 0])


def sides(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Isotropic image and text tokens whose largest difference is by far the gap."""
    x, y = np.random.default_rng(seed).normal(size=(2, 200, 6))
    return x, y + GAP


def shifts(name: str, draws: int = 20) -> np.ndarray:
    """The control's shifts over draws of data and of the control."""
    found = []
    for draw in range(draws):
        image, text = sides(draw)
        found.append(MAPS[name](image, text, context_of(image, text, per_sample=10, seed=draw)))
    assert all(own.scale is own.matrix is None for own in found)
    return np.stack([own.shift for own in found])


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_as_long_as_the_mean_shift(name):
    lengths = [np.linalg.norm(y.mean(0) - x.mean(0)) for x, y in map(sides, range(20))]
    np.testing.assert_allclose(np.linalg.norm(shifts(name), axis=1), lengths)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_has_no_more_of_the_gap_than_of_any_direction(name):
    own = shifts(name, 60)
    shares = (own**2 / (own**2).sum(1, keepdims=True)).mean(0)
    assert 0.05 < shares[0] < 0.3  # one of six dimensions has 0.17


def test_labels_that_are_shuffled_over_tokens_point_along_the_gap():
    """Why shuffled-labels keeps the shares of image and text in its groups."""
    shares = []
    for draw in range(60):
        tokens = np.random.default_rng(draw).permutation(np.concatenate(sides(draw)))
        shift = tokens[:200].mean(0) - tokens[200:].mean(0)
        shares.append(shift[0] ** 2 / (shift**2).sum())
    assert np.mean(shares) > 0.8


def test_shuffled_labels_is_the_difference_of_halves_of_the_samples():
    rng = np.random.default_rng(0)
    by_sample = rng.normal(size=(4, 6))
    image, text = np.repeat(by_sample, 3, axis=0), np.repeat(by_sample, 3, axis=0) + GAP
    shift = MAPS["shuffled-labels"](image, text, context_of(image, text, per_sample=3)).shift
    splits = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    differences = [by_sample.mean(0) - by_sample[list(pair)].mean(0) for pair in splits]
    cosines = [own @ shift / np.linalg.norm(own) / np.linalg.norm(shift) for own in differences]
    assert max(cosines) == pytest.approx(1)


def test_text_text_is_the_difference_of_disjoint_vocabularies():
    rng = np.random.default_rng(0)
    by_word = rng.normal(size=(6, 6))
    image, text = rng.normal(size=(12, 6)), np.tile(by_word, (5, 1)) + GAP
    shift = MAPS["text-text"](image, text, context_of(image, text)).shift
    halves = [s for s in range(64) if s.bit_count() == 3]
    masks = [np.array([bool(s >> word & 1) for word in range(6)]) for s in halves]
    differences = [by_word[~mask].mean(0) - by_word[mask].mean(0) for mask in masks]
    cosines = [own @ shift / np.linalg.norm(own) / np.linalg.norm(shift) for own in differences]
    assert max(cosines) == pytest.approx(1)


@pytest.mark.parametrize("name", CONTROLS)
def test_draws_and_seeds_differ_and_repeat(name):
    vectors = source(planted(range(12)))
    own = {
        (seed, draw): fit(name, vectors, seed=seed, draw=draw).layers[0].shift
        for seed in (0, 1)
        for draw in (0, 1)
    }
    again = fit(name, vectors, seed=1, draw=1).layers[0].shift
    assert again.equal(own[1, 1])
    keys = list(own)
    assert all(not own[a].equal(own[b]) for a in keys for b in keys if a < b)


def test_halves_and_vocabularies_are_the_same_at_every_layer_and_head():
    vectors = planted(range(12))
    vectors.array[:, 1] = vectors.array[:, 0]
    for name in ("shuffled-labels", "text-text"):
        own = fit(name, source(vectors, layers=(0, 3)))
        assert own.layers[0].shift.equal(own.layers[3].shift)
        assert own.layers[0].shift[0].equal(own.layers[0].shift[1])
    own = fit("random-direction", source(vectors, layers=(0, 3)))
    assert not own.layers[0].shift.equal(own.layers[3].shift)
    assert not own.layers[0].shift[0].equal(own.layers[0].shift[1])


def test_what_has_no_two_groups_is_one_line():
    image, text = sides(0)
    context = context_of(image, text, per_sample=10)
    with pytest.raises(UserError, match="one word only"):
        MAPS["text-text"](image, text, replace(context, words_text=np.full(200, "a")))
    one = replace(context, groups_image=np.full(200, "s"), groups_text=np.full(200, "s"))
    with pytest.raises(UserError, match="a random half of 1 samples has no image tokens"):
        MAPS["shuffled-labels"](image, text, one)
    same = replace(context_of(image, text, per_sample=100), rng=np.random.default_rng(0))
    with pytest.raises(UserError, match="has no direction"):
        MAPS["shuffled-labels"](np.ones_like(image), np.ones_like(text), same)
