"""Few, repeated and constant data are named; ordinary data are not."""

from typing import Any

import numpy as np
import pytest

from keygap import gap
from keygap.gap.core.cautions import FEW_SAMPLES, cautions
from keygap.gap.core.inputs import two_sides


def sides(samples=40, tokens=5, d=6, seed=0):
    """Both sides of independent vectors, and the sample id of each."""
    x, y = np.random.default_rng(seed).standard_normal((2, samples * tokens, d))
    return x, y + 1.0, np.repeat(np.arange(samples), tokens)


def of(x, y, groups_x, groups_y=None):
    return cautions(two_sides(x, y, groups_x, groups_x if groups_y is None else groups_y))


def test_ordinary_data_have_none():
    x, y, groups = sides()
    assert of(x, y, groups) == ()
    assert of(x.astype(np.float32), y.astype(np.float32) + 100.0, groups) == ()


@pytest.mark.parametrize(("samples", "few"), [(FEW_SAMPLES - 1, True), (FEW_SAMPLES, False)])
def test_few_samples(samples, few):
    assert bool(of(*sides(samples))) == few


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_one_sample_under_several_ids(noise):
    """Copies from other batches differ by rounding."""
    x, y, groups = sides()
    x = np.tile(x[:5], (40, 1)) * (1 + noise * np.random.default_rng(1).standard_normal(x.shape))
    (line,) = of(x, y, groups)
    assert line.startswith("x: 40 samples, only 1 of them different")
    (line,) = of(y, x, groups)
    assert line.startswith("y: 40 samples")


def test_a_few_copies_are_ordinary_and_many_are_not():
    x, y, groups = sides()
    x[:10] = x[10:20]  # two samples of forty
    assert of(x, y, groups) == ()
    x[:100] = np.tile(x[100:105], (20, 1))
    assert "40 samples, only 20 of them different" in of(x, y, groups)[0]


def test_repeated_vectors_in_different_samples():
    x, y, groups = sides()
    x = x[np.random.default_rng(2).integers(0, 50, len(x))]
    (line,) = of(x, y, groups)
    assert line.startswith("x: 200 vectors, only")


def test_a_side_that_is_a_point():
    x, y, groups = sides()
    assert of(np.ones_like(x), y, groups) == ("x: all 200 vectors are equal",)


def test_eight_identical_questions():
    x, y, groups = sides(8)
    y = np.tile(y[:5], (8, 1))
    few, copies = of(x, y, groups)
    assert few.startswith("8 samples, fewer than 20")
    assert "only 1 of them different" in copies


FEW: dict[str, Any] = {"n_permutations": 9}


@pytest.mark.parametrize(
    "call",
    [
        lambda *s: gap.mmd(*s, **FEW),
        lambda *s: gap.jsd(*s, **FEW),
        lambda *s: gap.jsd_profile(*s, dims=(2,), **FEW),
        lambda *s: gap.c2st(*s, dims=2, **FEW),
        lambda *s: gap.jsd_histogram(*s, **FEW),
        lambda *s: gap.modality_gap(*s, **FEW),
        lambda *s: gap.frechet(*s, **FEW),
        gap.moments,
        gap.spread,
        gap.contribution,
        lambda *s: gap.mmd_ratio(gap.mmd(*s, **FEW), gap.mmd(*s, **FEW)),
    ],
)
def test_every_result_has_them(call):
    x, y, groups = sides(8)
    y = np.tile(y[:5], (8, 1))
    found = call(x, y, groups, groups).cautions
    assert any("fewer than 20" in line for line in found)
    assert any("only 1 of them different" in line for line in found)
