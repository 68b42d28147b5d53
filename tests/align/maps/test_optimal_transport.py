"""Optimal transport agrees with POT, and closes a planted gap on samples that it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import ot
import pytest
import torch
from sklearn.covariance import LedoitWolf

from keygap import gap
from keygap.align.fitting import fit
from keygap.align.maps.optimal_transport import optimal_transport, transport_matrix
from keygap.errors import UserError

from ..made_vectors import context_of, planted, source

# The planted sides differ in covariance too, so that moving the mean is not enough.
CLOSES = [("optimal-transport", True), ("mean-shift", False), ("random-direction", False)]


def sides(seed: int, dimensions: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixed = (rng.normal(size=(dimensions, dimensions)) for _ in range(2))
    image, text = (
        rng.normal(size=(n, dimensions)) @ own + rng.normal(size=dimensions)
        for n, own in zip((400, 300), mixed, strict=True)
    )
    return image, text


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_shrinkage_it_is_that_of_pot(seed):
    image, text = sides(seed)
    matrix, offset = ot.gaussian.empirical_bures_wasserstein_mapping(image, text, reg=0.0)
    own = transport_matrix(np.cov(image.T, bias=True), np.cov(text.T, bias=True))
    np.testing.assert_allclose(own, matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(text.mean(0) - image.mean(0) @ own, offset[0], rtol=1e-5, atol=1e-5)
    linear = ot.da.LinearTransport(reg=0.0).fit(Xs=image, Xt=text)
    moved = (image - image.mean(0)) @ own + text.mean(0)
    np.testing.assert_allclose(moved, linear.transform(Xs=image), rtol=1e-5, atol=1e-5)


def test_with_shrinkage_it_is_that_of_pot_for_the_shrunk_covariances():
    image, text = sides(3)
    own = optimal_transport(image, text, context_of(image, text))
    matrix, offset = ot.gaussian.bures_wasserstein_mapping(
        image.mean(0, keepdims=True),
        text.mean(0, keepdims=True),
        LedoitWolf().fit(image).covariance_,
        LedoitWolf().fit(text).covariance_,
    )
    np.testing.assert_allclose(own.matrix, matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(own.shift, offset[0], rtol=1e-5, atol=1e-5)


def test_too_few_tokens_are_counted_in_tokens_and_samples():
    image, text = sides(0, dimensions=16)
    few = text[:8]
    with pytest.raises(UserError) as error:
        optimal_transport(image, few, context_of(image, few, per_sample=2))
    assert str(error.value) == (
        "8 text tokens of 4 samples are too few for a covariance of 16 dimensions: 17 tokens are "
        "needed, which is about 9 samples"
    )
    optimal_transport(image, text[:17], context_of(image, text[:17]))


def test_vectors_that_do_not_vary_are_one_line():
    image, text = sides(0)
    same = np.ones_like(image)
    with pytest.raises(UserError, match="a covariance is singular"):
        optimal_transport(same, text, context_of(same, text))


@pytest.fixture(scope="module")
def unseen():
    """Image and text vectors of held-out samples without sinks, and their sample ids."""
    vectors = planted(range(300, 340), seed=1)
    labels = vectors.labels[vectors.labels["attention"] < 5]
    sides = [labels.index[labels["modality"] == kind].to_numpy() for kind in ("image", "text")]
    return [(vectors.array[rows], vectors.sample_ids[rows]) for rows in sides]


def moved(name: str, image: np.ndarray) -> np.ndarray:
    own = fit(name, source(planted(range(300))))
    return own.layers[0].apply(torch.from_numpy(image)).numpy()


def flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


@pytest.mark.parametrize(("name", "closes"), CLOSES)
def test_mmd_falls_into_its_null_band_on_held_out_samples(unseen, name, closes):
    (image, image_ids), (text, text_ids) = unseen
    before = gap.mmd(flat(image), flat(text), image_ids, text_ids, n_permutations=400)
    assert before.mmd2 > 2 * before.null_band[1]
    after = gap.mmd(flat(moved(name, image)), flat(text), image_ids, text_ids, n_permutations=400)
    assert (after.mmd2 <= after.null_band[1]) == closes
    assert (after.p_value > 0.05) == closes


@pytest.mark.parametrize(("name", "closes"), CLOSES)
def test_jsd_falls_into_its_null_band_on_held_out_samples(unseen, name, closes):
    """The test finds nothing and the interval of the bound holds 0, or neither."""
    (image, image_ids), (text, text_ids) = unseen
    arguments: Any = {"critics": ("linear", "quadratic"), "n_permutations": 200}
    after = gap.jsd(flat(moved(name, image)), flat(text), image_ids, text_ids, **arguments)
    assert (after.p_value > 0.05) == closes
    assert (after.nats < 0.01) == closes
    assert (after.ci[0] == 0) == closes
