"""How a specification curve names levels and numbers, and the quantiles of weighted rows."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.reporting.choices_curve import in_words, quantile, short
from keygap.reporting.choices_figure import fit

HOSTILE = "org/<script>alert(1)</script>\"'&$x$\n\u202e-7b"


@pytest.mark.parametrize("q", [0.0, 0.05, 0.3, 0.5, 0.95, 1.0])
def test_a_quantile_counts_a_weight_as_copies(q):
    rng = np.random.default_rng(0)
    values, times = rng.permutation(40).astype(float), rng.integers(1, 5, 40)
    copies = np.sort(np.repeat(values, times))
    expected = copies[max(int(np.ceil(q * len(copies) - 1e-9)) - 1, 0)]
    assert quantile(values, times / 7, q) == expected
    assert quantile(np.append(values, np.nan), np.append(times, 9.0), q) == expected


def test_a_quantile_of_nothing_is_nan():
    assert np.isnan(quantile(np.array([np.nan]), np.ones(1), 0.5))
    assert np.isnan(quantile(np.array([]), np.array([]), 0.5))
    assert quantile(np.array([1.0, np.inf, np.inf]), np.ones(3), 0.5) == np.inf


@pytest.mark.parametrize(
    ("factor", "level", "words"),
    [
        ("heads", "12", "head 12"),
        ("layer", "12", "layer 12"),
        ("layer", "mean", "mean of layers"),
        ("heads", "mean", "mean of heads"),
        ("estimator", "joint_50_10", "joint 50-d, 10 bins"),
        ("estimator", "histogram_100", "histogram, 100 bins"),
        ("tokens", "5000", "5,000"),
        ("model", "without_sinks", "without_sinks"),
        ("outliers", "a_new_level", "a new level"),
    ],
)
def test_levels_are_named_in_words(factor, level, words):
    assert in_words(factor, level) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (np.inf, "∞"),
     (2e7, "2.0e+07"), (np.nan, ""), (0.0, "0.000"), (-3.2, "-3.20")],
)  # fmt: skip
def test_numbers_have_about_three_digits(value, text):
    assert short(value) == text


def test_long_names_keep_both_ends():
    assert fit("micro:linear") == "micro:linear"
    assert fit("llava-hf/llava-1.5-7b-hf") == "llava-1.5-7b-hf"
    assert fit("org/" + "a" * 20 + "b" * 20) == "a" * 10 + "…" + "b" * 10
    assert "\n" not in fit(HOSTILE)
