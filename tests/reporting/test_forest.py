"""The plot of ratios shows every interval, also one that has no end."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from keygap.reporting.forest import forest, forest_caption, rows_of
from keygap.reporting.run import Run, read_run


@pytest.fixture(scope="module")
def measured(two_sites) -> Run:
    return read_run(two_sites)


def drawn(run: Run) -> tuple[list[str], np.ndarray, tuple[float, float]]:
    """Markers of the lines, their horizontal places, and the ends of the axis."""
    figure = forest([run], "k_proj")
    assert figure is not None
    (axes, *_) = figure.axes
    lines = [line for line in axes.lines if line.get_marker() != "None"]
    places = np.concatenate([np.asarray(line.get_xdata(), float) for line in lines])
    return [str(line.get_marker()) for line in lines], places, axes.get_xlim()


def test_a_point_and_a_bar_for_each_ratio(measured) -> None:
    n = len(rows_of([measured], "k_proj"))
    markers, places, (left, right) = drawn(measured)
    assert n >= 2
    assert sorted(markers) == ["o"] * n + ["|"] * n
    assert ((places > left) & (places < right)).all()
    assert left < 1 < right
    assert "Arrow" not in forest_caption([measured], "k_proj")


def test_an_interval_without_an_end_is_drawn_to_the_edge_with_an_arrow(measured) -> None:
    frame = measured.table.frame.copy()
    own = frame["site"].eq("k_proj") & frame["head"].eq("all") & frame["ratio"].notna()
    place = frame.index[own & frame["confound"].eq("")][0]
    frame.loc[place, ["ratio_ci_low", "ratio_ci_high"]] = 0.0, math.inf
    run = dataclasses.replace(measured, table=dataclasses.replace(measured.table, frame=frame))
    markers, places, (left, right) = drawn(run)
    assert (markers.count("<"), markers.count(">")) == (1, 1)
    assert np.isfinite(places).all()
    assert (places.min(), places.max()) == (left, right)
    assert "Arrows: intervals without an end here" in forest_caption([run], "k_proj")
