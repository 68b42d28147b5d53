"""Every registered statistic runs on two sides and says its numbers in the common form."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from planted import tokens

from keygap import gap
from keygap.errors import UserError

SAMPLES = 30
SCALARS = str | int | float | bool | None


@pytest.fixture(scope="module")
def sides():
    rng = np.random.default_rng(0)
    x, groups_x = tokens(rng, np.full(SAMPLES, 5), 64, 0.3)
    y, groups_y = tokens(rng, np.full(SAMPLES, 4), 64, 0.3)
    y[:, :8] += 0.7
    return gap.Sides(x, y, groups_x, groups_y, heads=4, n_permutations=49, n_bootstraps=49)


@pytest.mark.parametrize("name", gap.STATISTICS)
def test_readings_are_complete_and_told_apart(name, sides):
    readings = gap.STATISTICS[name](sides).readings
    keys = [(reading.name, reading.side, reading.head, reading.dims) for reading in readings]
    assert len(set(keys)) == len(keys) > 0
    for reading in readings:
        level: Any = reading.settings.get("level")
        assert reading.what
        assert math.isfinite(reading.value)
        assert reading.side in ("", "x", "y")
        assert isinstance(reading.settings, Mapping)
        assert all(isinstance(value, SCALARS) for value in reading.settings.values())
        for band in filter(None, (reading.ci, reading.null_band)):
            assert band[0] <= band[1]
        if reading.ci:
            assert reading.ci[0] <= reading.value <= reading.ci[1]
            assert 0.0 < level < 1.0
        assert reading.p_value is None or 0.0 < reading.p_value <= 1.0


def test_each_works_in_the_coordinates_it_declares(sides):
    """The registered form gives what the function gives on coordinates made by hand."""
    pooled = np.concatenate([sides.x, sides.y])
    weight = np.repeat([0.5 / len(sides.x), 0.5 / len(sides.y)], [len(sides.x), len(sides.y)])
    centred = pooled - weight @ pooled
    scaled = (centred / np.sqrt(weight @ centred**2)).astype(np.float32)
    by_hand = scaled[: len(sides.x)], scaled[len(sides.x) :]
    np.testing.assert_allclose(sides.standardised[0], by_hand[0], atol=1e-5)
    by_name = {reading.name: reading for reading in gap.STATISTICS["mmd"](sides).readings}
    direct = gap.mmd(*by_hand, *sides.groups, n_permutations=49)
    assert by_name["mmd2"].value == pytest.approx(direct.mmd2, abs=1e-6)
    assert by_name["mmd"].value == pytest.approx(math.sqrt(direct.mmd2), abs=1e-6)
    raw = gap.modality_gap(sides.x, sides.y, *sides.groups)
    assert gap.STATISTICS["modality_gap"](sides).readings[0].value == raw.gap
    # Components keep the units: 50 of 64 hold most of the variance of standardised columns.
    scores = np.concatenate(sides.components)
    assert scores.shape == (len(pooled), 50)
    assert 45 < (weight @ scores**2).sum() < 64


def test_mmd_readings_state_the_null_and_the_roots(sides):
    squared, root = gap.STATISTICS["mmd"](sides).readings
    assert squared.null_band[0] <= squared.null <= squared.null_band[1] < squared.value
    assert root.ci == pytest.approx(np.sqrt(np.maximum(squared.ci, 0.0)))
    assert root.null_band == pytest.approx(np.sqrt(np.maximum(squared.null_band, 0.0)))
    assert squared.p_value == root.p_value == pytest.approx(1 / 50)
    assert squared.settings["kernel"] == "gaussian"
    assert float(squared.settings["bandwidth"]) > 0.0
    without_swaps = gap.mmd(*sides.standardised, *sides.groups, n_permutations=0).readings
    assert [(r.null, r.null_band, r.p_value) for r in without_swaps] == [(None, None, None)] * 2


NO_DRAWS: dict[str, Any] = {"n_permutations": 0}


@pytest.mark.parametrize(
    ("statistic", "options"),
    [
        (gap.mmd, {"n_bootstraps": 0}),
        (gap.jsd, {"dims": 2, "n_bootstraps": 0, "critics": ["linear"]}),
        (gap.jsd_profile, {"dims": [2], "n_bootstraps": 0, "critics": ["linear"]}),
        (gap.c2st, {"dims": 2, "n_bootstraps": 0, "critics": ["linear"]}),
        (gap.jsd_histogram, {}),
        (gap.jsd_marginals, {}),
        (gap.jsd_neighbours, {}),
        (gap.frechet, {}),
        (gap.modality_gap, {}),
    ],
)
def test_readings_without_draws_claim_no_null_no_p_and_no_interval(statistic, options, sides):
    x, y = (side[:, :4] for side in sides.standardised)
    found = statistic(x, y, *sides.groups, **NO_DRAWS, **options)
    for reading in found.readings:
        assert reading.p_value is None
        assert reading.null is None or reading.name == "c2st_accuracy"  # 1/2 by its definition
        assert reading.null_band is None
        if "n_bootstraps" in options and statistic is not gap.mmd:  # whose interval is a jackknife
            assert reading.ci is None
        assert reading.ci is None or not np.isnan(reading.ci).any()
    assert not re.search(r"\bnan\b", f"{found!r} {found._repr_html_()} {found}")


def test_jsd_takes_the_dims_that_were_asked_for(sides):
    profile: Any = gap.STATISTICS["jsd"](sides)
    assert [reading.dims for reading in profile.readings] == [2, 5, 10, 50]
    assert {r.settings["saturates_at"] for r in profile.readings} == {profile.saturates_at}
    assert all(reading.settings["estimator"] for reading in profile.readings)
    assert all(reading.p_value is None for reading in profile.readings)
    few = gap.Sides(
        sides.x,
        sides.y,
        groups_x=sides.groups_x,
        groups_y=sides.groups_y,
        dims=(2,),
        n_bootstraps=49,
    )
    (one,) = gap.STATISTICS["jsd"](few).readings
    assert one.dims == 2
    assert one.value == pytest.approx(profile.readings[0].value, abs=1e-4)


def test_coordinates_are_computed_once(sides):
    assert sides.standardised is sides.standardised
    assert sides.components is sides.components


def test_a_statistic_of_another_package(sides):
    class Range:
        def __init__(self, value):
            self.readings = (gap.Reading("range", value, "largest minus smallest value"),)

    gap.STATISTICS.register(
        "range", gap.Statistic("the range", lambda x, y, s: Range(np.ptp(x)), coordinates="raw")
    )
    try:
        (reading,) = gap.STATISTICS["range"](sides).readings
        assert reading.value == np.ptp(sides.x)
    finally:
        gap.STATISTICS.unregister("range")


def test_an_unknown_statistic_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'frechet'"):
        gap.STATISTICS["frechett"]


def test_scopes():
    everywhere = [name for name in gap.STATISTICS if gap.STATISTICS[name].scope == "ladder"]
    assert everywhere == ["mmd", "jsd"]
