"""The histogram says what it is worth: its null saturates with it."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from keygap import gap
from keygap.errors import UserError

from .made_sides import classified_sides


def test_histogram_states_its_own_saturation():
    two = gap.jsd_histogram(*classified_sides(9, samples=100, d=60), dims=2)
    fifty = gap.jsd_histogram(*classified_sides(9, samples=100, d=60), dims=50)
    assert two.null_nats < 0.12
    assert fifty.null_nats > 0.6  # every vector in a bin of its own: the null itself is saturated
    assert fifty.nats == pytest.approx(fifty.null_nats, abs=0.01)
    assert gap.jsd_histogram(*classified_sides(9, shift=4.0), dims=2).nats > 0.5


def test_one_component_equals_two_histograms_by_hand():
    """One column is its own component, so the bins are those of the values."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 1)), rng.normal(size=(300, 1)) + 1.0
    edges = np.linspace(min(x.min(), y.min()), max(x.max(), y.max()), 8)
    p, q = (np.histogram(side, edges)[0] for side in (x, y))
    found = gap.jsd_histogram(x, y, dims=1, bins=7)
    assert found.nats == pytest.approx(jensenshannon(p, q) ** 2)
    assert found.bits == pytest.approx(found.nats / math.log(2))
    assert found.p_value == pytest.approx(1 / 21)


def test_one_bin_is_refused():
    with pytest.raises(UserError, match="at least 2"):
        gap.jsd_histogram(*classified_sides(0), bins=1)
