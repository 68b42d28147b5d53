"""Ratios of a gap to its ladder, on tables small enough to work out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from keygap.measurement.verdict import SUMMARY_COLUMNS, ratio_to_same, summarise


@pytest.mark.parametrize(
    ("mmd2", "upper_ends", "ratio"),
    [
        (0.3, [0.01, 0.02], 15.0),
        (-0.01, [0.02], -0.5),
        (0.3, [-0.01, -0.02], math.inf),  # no baseline can be above 0: no bound
        (0.3, [0.0], math.inf),
        (0.3, [0.02, math.nan], 15.0),
        (0.3, [], math.nan),  # no baseline was measured
        (math.nan, [0.02], math.nan),
    ],
)
def test_the_ratio_to_same_is_to_the_largest_upper_end(mmd2, upper_ends, ratio):
    assert ratio_to_same(mmd2, upper_ends) == pytest.approx(ratio, nan_ok=True)


def row(contrast: str, rung: str, mmd2: float, half: float = 0.01, **more: Any) -> dict[str, Any]:
    """A row of ``gap.csv`` with an interval of mmd2 +- half."""
    return {
        "model": "m", "site": "k_proj", "layer": 3, "head": "all", "contrast": contrast,
        "rung": rung, "mmd2": mmd2, "mmd2_ci_low": mmd2 - half, "mmd2_ci_high": mmd2 + half,
        "highest": np.nan, "ratio": np.nan, "ratio_ci_low": np.nan, "ratio_ci_high": np.nan,
    } | more  # fmt: skip


JUDGED: dict[str, Any] = {
    "highest": "words",
    "ratio": 2.0,
    "ratio_ci_low": 1.5,
    "ratio_ci_high": 2.666,
}


def test_every_gap_between_modalities_has_a_row():
    """None of them by name."""
    frame = pd.DataFrame(
        [
            row("image_text", "between", 0.4, **JUDGED),
            row("image_caption", "between", 0.1),
            row("image_image", "same", 0.01),
            row("text_text", "same", 0.03),
            row("words", "kind", 0.2),
            row("image_text", "between", 0.9, head="0"),
        ]
    )
    first, second = summarise(frame).to_dict("records")
    assert tuple(first) == SUMMARY_COLUMNS
    assert (first["contrast"], first["mmd2"]) == ("image_text", 0.4)
    assert (first["highest"], first["kind"], first["ratio_kind"]) == ("words", 0.2, 2.0)
    assert first["interval"] == "1.50 to 2.67"
    assert first["same"] == 0.03
    assert first["ratio_same"] == pytest.approx(0.4 / 0.04)
    assert (second["contrast"], second["highest"], second["interval"]) == ("image_caption", "", "")
    assert np.isnan(second["kind"])
    assert np.isnan(second["ratio_kind"])
    assert second["ratio_same"] == pytest.approx(0.1 / 0.04)


def test_a_baseline_below_zero_gives_no_bound_and_not_a_blank():
    """The whole interval of the halves is below 0: any ratio is possible."""
    frame = pd.DataFrame([row("image_text", "between", 0.4), row("image_image", "same", -0.02)])
    assert summarise(frame)["ratio_same"].tolist() == [math.inf]


def test_a_gap_with_nothing_beside_it_is_blank():
    (only,) = summarise(pd.DataFrame([row("image_text", "between", 0.4)])).to_dict("records")
    assert (only["highest"], only["interval"]) == ("", "")
    assert all(np.isnan(only[name]) for name in ("kind", "ratio_kind", "same", "ratio_same"))


def test_layers_without_a_gap_have_no_row():
    found = summarise(pd.DataFrame([row("image_image", "same", 0.01)]))
    assert found.empty
    assert tuple(found.columns) == SUMMARY_COLUMNS
