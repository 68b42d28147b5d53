"""Captions of results: a number "on each side" is that of either side."""

import numpy as np
import pytest

from keygap import gap


@pytest.mark.parametrize(
    ("samples", "vectors", "said"),
    [
        ((12, 12), (36, 36), ": 12 samples on each side, 36 vectors on each side, paired"),
        ((12, 12), (36, 24), ": 12 samples on each side, 36 and 24 vectors, paired"),
        ((12, 18), (36, 36), ": 12 and 18 samples, 36 vectors on each side, unpaired"),
        ((12, 8), (36, 24), ": 12 and 8 samples, 36 and 24 vectors, unpaired"),
    ],
)
def test_samples_and_vectors_of_a_caption(samples, vectors, said):
    x, y = (np.random.default_rng(n).normal(size=(n, 3)) for n in vectors)
    of_x, of_y = (np.arange(n) % s for s, n in zip(samples, vectors, strict=True))
    found = gap.mmd(x, y, of_x, of_y, paired=samples[0] == samples[1], n_permutations=9)
    assert said in found._repr_html_()


def test_a_caption_of_vectors_alone():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 3))
    assert ": 30 vectors on each side, unpaired" in gap.frechet(x, y)._repr_html_()
    assert ": 30 and 20 vectors, unpaired" in gap.frechet(x, y[:20])._repr_html_()
