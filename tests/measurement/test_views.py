"""Wide views of a long table that is written here by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from keygap.measurement.tables import statistics_frame
from keygap.measurement.views import (
    GAP_COLUMNS,
    PROFILE_COLUMNS,
    SHAPE_COLUMNS,
    gap_view,
    profile_view,
    shape_view,
)


def row(statistic: str, value: float, settings: dict[str, Any] | None = None, **more: Any):
    return {
        "model": "m", "connector": "c", "benchmark": "b", "site": "key", "layer": "3",
        "head": "all", "contrast": "image_text", "rung": "between", "confound": "",
        "statistic": statistic, "side": "", "value": value, "n_samples": 9, "n_a": 90, "n_b": 50,
        "settings": json.dumps(settings or {}), "what": f"about {statistic}",
    } | more  # fmt: skip


def comparison(first: float, **where: Any) -> list[dict[str, Any]]:
    """MMD, its root and JSD in 2 and 5 components, numbered from ``first``."""
    return [
        row("mmd2", first, {"bandwidth": 7.5}, ci_low=first - 0.1, ci_high=first + 0.1,
            null_low=-0.01, null_high=0.01, p_value=0.5, p_holm=1.0, **where),
        row("mmd", first + 1, **where),
        row("jsd", 0.25, {"estimator": "linear", "saturates_at": 5}, dims=2, ci_low=0.2,
            ci_high=0.3, **where),
        row("jsd", 0.68, {"estimator": "spline", "saturates_at": 5}, dims=5, **where),
    ]  # fmt: skip


@pytest.fixture
def statistics() -> pd.DataFrame:
    kind: dict[str, Any] = {"contrast": "words", "rung": "kind"}
    return statistics_frame(
        [
            *comparison(0.5),
            *comparison(0.4, confound="equal_counts", n_a=60),
            *comparison(0.3, head="1"),
            *comparison(0.2, **kind),
            row("frechet", 11.0, dims=50, null=2.0),
            row("spread", 12.0, side="image"),
            row("mir", 13.0, layer="all"),
            row("frechet", 14.0, dims=50, **kind),
            row("mmd2_ratio", 2.5, {"highest": "words"}, ci_low=2.0, ci_high=math.inf),
        ]
    )


def test_the_gap_has_a_row_for_every_comparison(statistics):
    frame = gap_view(statistics)
    assert tuple(frame.columns) == GAP_COLUMNS
    assert list(zip(frame["contrast"], frame["confound"], frame["head"], strict=True)) == [
        ("image_text", "", "all"),
        ("image_text", "equal_counts", "all"),
        ("image_text", "", "1"),
        ("words", "", "all"),
    ]
    first = frame.iloc[0].to_dict()
    assert first["layer"] == 3
    assert (first["mmd2"], first["mmd2_ci_low"], first["mmd2_null_low"]) == (0.5, 0.4, -0.01)
    assert (first["mmd"], first["bandwidth"]) == (1.5, 7.5)
    assert (first["p_value"], first["p_holm"]) == (0.5, 1.0)
    assert (first["jsd_nats"], first["jsd_dim"], first["jsd_estimator"]) == (0.25, 2, "linear")
    assert first["jsd_bits"] == pytest.approx(0.25 / np.log(2))
    assert (first["highest"], first["ratio"], first["ratio_ci_high"]) == ("words", 2.5, np.inf)
    assert frame["ratio"].notna().tolist() == [True, False, False, False]
    assert frame["n_a"].tolist() == [90, 60, 90, 90]


def test_the_profile_has_all_heads_together_without_confounds(statistics):
    frame = profile_view(statistics)
    assert tuple(frame.columns) == PROFILE_COLUMNS
    assert frame["contrast"].tolist() == ["image_text", "image_text", "words", "words"]
    assert frame["jsd_dim"].tolist() == [2, 5, 2, 5]
    assert frame["jsd_estimator"].tolist() == ["linear", "spline"] * 2
    assert frame["jsd_saturates_at"].tolist() == [5.0] * 4
    assert frame["mmd_p_value"].tolist() == [0.5] * 4


def test_the_profile_has_the_p_of_mmd_of_the_same_comparison(statistics):
    is_mmd2 = statistics["statistic"] == "mmd2"
    statistics.loc[is_mmd2 & (statistics["contrast"] == "words"), "p_value"] = 0.01
    statistics.loc[is_mmd2 & (statistics["confound"] != ""), "p_value"] = 0.02
    frame = profile_view(statistics)
    assert frame.groupby("contrast")["mmd_p_value"].unique().to_dict() == {
        "image_text": [0.5],
        "words": [0.01],
    }


def test_the_shape_has_the_other_statistics_of_gaps(statistics):
    frame = shape_view(statistics)
    assert tuple(frame.columns) == SHAPE_COLUMNS
    assert frame["statistic"].tolist() == ["frechet", "spread", "mir"]
    assert frame["layer"].tolist() == ["3", "3", "all"]
    assert frame["side"].tolist() == ["", "image", ""]
    assert frame["dims"].iloc[0] == 50.0


@pytest.mark.parametrize(
    ("view", "columns"),
    [(gap_view, GAP_COLUMNS), (profile_view, PROFILE_COLUMNS), (shape_view, SHAPE_COLUMNS)],
)
def test_nothing_measured_is_an_empty_view(view, columns):
    frame = view(statistics_frame([]))
    assert frame.empty
    assert tuple(frame.columns) == columns
