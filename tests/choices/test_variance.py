"""Shares of variance against designs whose decomposition is known."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from keygap.choices.levels import FACTORS
from keygap.choices.variance import variance_of


def design(value) -> pd.DataFrame:
    """Three layers, two texts, two units; everything else is fixed."""
    rows = []
    for layer, text, unit in itertools.product(range(3), range(2), range(2)):
        fixed = dict.fromkeys(FACTORS, "one")
        ratio = 10.0 ** value(layer, text, unit)
        rows.append(fixed | {
            "model": "m", "benchmark": "b", "site": "s", "measure": "mmd",
            "layer": layer, "text": text, "unit": unit, "ratio": ratio,
            "cross": np.nan, "estimator": "linear", "weight": 1.0,
        })  # fmt: skip
    return pd.DataFrame(rows)


def shares(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    found = variance_of(frame)
    return {
        str(row["factor"]): (float(row["alone"]), float(row["with_interactions"]))
        for row in found.to_dict("records")
    }


def test_an_additive_number_is_split_by_the_variances_of_its_terms():
    """Var of 0, 1, 2 is 2/3; of 0, 3 it is 9/4; of nothing 0."""
    found = shares(design(lambda layer, text, unit: layer + 3 * text))
    total = 2 / 3 + 9 / 4
    assert found["layer"] == pytest.approx((2 / 3 / total,) * 2)
    assert found["text"] == pytest.approx((9 / 4 / total,) * 2)
    assert found["unit"] == pytest.approx((0, 0), abs=1e-12)
    assert list(found) == ["text", "layer", "unit"]


def test_a_pure_interaction_is_of_no_factor_alone():
    found = shares(design(lambda layer, text, unit: (2 * text - 1) * (2 * unit - 1)))
    assert found["text"] == pytest.approx((0, 1), abs=1e-12)
    assert found["unit"] == pytest.approx((0, 1), abs=1e-12)


def test_weights_count_single_heads_together():
    """Values 0, 1, 2 of weights 1, 1, 1/2: variance 0.56; the other factor adds 1/4."""
    frame = design(lambda layer, text, unit: layer + text)
    frame["weight"] = np.where(frame["layer"] == 2, 0.5, 1.0)
    found = shares(frame)
    assert found["layer"] == pytest.approx((0.56 / 0.81,) * 2)
    assert found["text"] == pytest.approx((0.25 / 0.81,) * 2)


def test_infinite_and_negative_ratios_have_no_logarithm_and_are_left_out():
    frame = design(lambda layer, text, unit: layer + text)
    frame.loc[0, "ratio"] = np.inf
    frame.loc[1, "ratio"] = -2.0
    assert set(variance_of(frame)["n_choices"]) == {len(frame) - 2}
