"""A JSD in a table says what MMD finds where no critic found a bound."""

import math

import pytest

from keygap.measurement.verdict import jsd_in_words


@pytest.mark.parametrize(
    ("nats", "estimator", "p", "words"),
    [
        (0.1234, "spline", 0.001, "0.123"),
        (0.0, "none", 0.4, "no bound found"),
        (0.0, "spline", 0.4, "no bound found"),
        (0.0, "none", 0.001, "no bound found, but MMD finds a difference (p = 0.001)"),
        (math.nan, "none", 0.001, ""),
    ],
)
def test_words(nats, estimator, p, words):
    assert jsd_in_words(nats, estimator, p) == words
