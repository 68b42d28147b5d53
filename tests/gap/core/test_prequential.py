"""Label swaps of the prequential test: drawn a few at a time, they are those drawn at once."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.gap.core import prequential, resampling


@pytest.mark.parametrize("compare", [prequential._compare_paired, prequential._compare_unpaired])
def test_swaps_drawn_a_few_at_a_time_are_the_same(compare, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=31), rng.normal(size=31)
    observed, at_once = compare(a, b, 1000, np.random.default_rng(1))
    monkeypatch.setattr(resampling, "_CHUNK", 200)
    again, in_parts = compare(a, b, 1000, np.random.default_rng(1))
    assert again == observed
    np.testing.assert_allclose(in_parts, at_once, atol=1e-12)


def test_swaps_of_differences_have_their_known_spread():
    """Independent signs: mean zero, and the variance is the sum of squares, which is one."""
    a, b = np.random.default_rng(2).normal(size=(2, 40))
    observed, null = prequential._compare_paired(a, b, 20_000, np.random.default_rng(3))
    assert observed == pytest.approx((a - b).sum() / np.sqrt(((a - b) ** 2).sum()))
    assert null.mean() == pytest.approx(0.0, abs=0.03)
    assert null.var() == pytest.approx(1.0, abs=0.04)
