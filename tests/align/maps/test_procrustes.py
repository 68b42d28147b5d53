"""The orthogonal map is SciPy's for the same pairs, and recovers a planted rotation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from scipy.stats import ortho_group

from keygap.align.maps.procrustes import orthogonal_matrix, procrustes
from keygap.errors import UserError

from ..made_vectors import context_of

DIMENSIONS, SAMPLES = 5, 40


def test_it_is_that_of_scipy():
    x, y = np.random.default_rng(0).normal(size=(2, SAMPLES, DIMENSIONS))
    expected, _ = scipy.linalg.orthogonal_procrustes(x, y)
    np.testing.assert_allclose(orthogonal_matrix(x, y), expected, atol=1e-12)


def test_where_texts_repeat_the_rest_stays_as_near_as_it_can():
    rng = np.random.default_rng(3)
    dimensions, kinds, count = 64, 12, 160
    said = rng.integers(kinds, size=count)
    x, y = rng.normal(size=(count, dimensions)), rng.normal(size=(kinds, dimensions))[said]
    x, y = x - x.mean(0), y - y.mean(0)
    y += 1e-7 * rng.normal(size=y.shape)  # a model's rounding
    own = orthogonal_matrix(x, y)
    np.testing.assert_allclose(own @ own.T, np.eye(dimensions), atol=1e-10)
    order = rng.permutation(count)
    np.testing.assert_allclose(orthogonal_matrix(x[order], y[order]), own, atol=1e-10)
    rounded = y + 1e-7 * rng.normal(size=y.shape)
    np.testing.assert_allclose(orthogonal_matrix(x, rounded), own, atol=1e-5)
    expected, _ = scipy.linalg.orthogonal_procrustes(x, y)
    assert np.linalg.norm(x @ own - y) == pytest.approx(np.linalg.norm(x @ expected - y), rel=1e-6)
    assert np.trace(own) > np.trace(expected) + 10


def test_without_any_pair_to_turn_nothing_turns():
    x = np.random.default_rng(4).normal(size=(SAMPLES, DIMENSIONS))
    np.testing.assert_allclose(orthogonal_matrix(x, 0 * x), np.eye(DIMENSIONS), atol=1e-12)


def pairs(rotation: np.ndarray, noise: float) -> tuple:
    """Three image tokens and two text tokens of each sample, around turned content."""
    rng = np.random.default_rng(1)
    content = rng.normal(size=(SAMPLES, DIMENSIONS))
    of_text = content @ rotation + 3
    image = np.repeat(content - 1, 3, axis=0) + noise * rng.normal(size=(3 * SAMPLES, DIMENSIONS))
    text = np.repeat(of_text, 2, axis=0) + noise * rng.normal(size=(2 * SAMPLES, DIMENSIONS))
    context = replace(
        context_of(image, text, per_sample=3),
        groups_text=np.array([f"s{n // 2:04}" for n in range(len(text))]),
    )
    return image, text, context


def test_a_planted_rotation_is_found():
    rotation = ortho_group.rvs(DIMENSIONS, random_state=0)
    image, text, context = pairs(rotation, noise=0.0)
    own = procrustes(image, text, context)
    np.testing.assert_allclose(own.matrix, rotation, atol=1e-10)
    np.testing.assert_allclose((image @ own.matrix + own.shift)[::3], text[::2], atol=1e-10)


def test_samples_are_paired_by_id_and_others_only_move_the_mean():
    rotation = ortho_group.rvs(DIMENSIONS, random_state=1)
    image, text, context = pairs(rotation, noise=0.3)
    order = np.random.default_rng(2).permutation(len(text))
    alone = np.full((4, DIMENSIONS), 9.0)
    shuffled = replace(
        context,
        groups_image=np.append(context.groups_image, ["alone"] * 4),
        groups_text=context.groups_text[order],
        words_text=context.words_text[order],
    )
    mixed = procrustes(np.concatenate([image, alone]), text[order], shuffled)
    own = procrustes(image, text, context)
    np.testing.assert_allclose(mixed.matrix, own.matrix, atol=1e-10)
    mean = np.concatenate([image, alone]).mean(0)
    np.testing.assert_allclose(mean @ mixed.matrix + mixed.shift, text.mean(0), atol=1e-10)
    by_hand, _ = scipy.linalg.orthogonal_procrustes(
        *(side.reshape(SAMPLES, -1, DIMENSIONS).mean(1) - side.mean(0) for side in (image, text))
    )
    np.testing.assert_allclose(own.matrix, by_hand, atol=1e-10)


def test_fewer_pairs_than_dimensions_are_refused():
    image, text, context = pairs(np.eye(DIMENSIONS), noise=0.1)
    few = replace(
        context, groups_image=context.groups_image[:15], groups_text=context.groups_text[:10]
    )
    with pytest.raises(UserError, match=r"5 samples have both .* 6 samples are needed"):
        procrustes(image[:15], text[:10], few)
