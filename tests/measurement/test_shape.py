"""The shape of the gap between image and text: every statistic, dimensions, MIR over layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keygap.measurement.shape import mir_over_layers
from keygap.measurement.tables import DIMENSION_COLUMNS, statistics_frame
from keygap.measurement.views import SHAPE_COLUMNS

EXPECTED = {
    "modality_gap", "modality_gap_unbiased", "mir_distance", "mir",
    "frechet", "frechet_from_means", "frechet_from_covariances",
    "share_mean", "share_covariance", "share_higher",
    "mean_difference", "dimensions_for_half", "head_share",
    "spread", "spread_ratio", "effective_dimension", "effective_dimension_ratio", "separation",
    "c2st_accuracy", "jsd_histogram",
}  # fmt: skip


@pytest.fixture(scope="module")
def numbers(table) -> pd.DataFrame:
    return table.shape.frame.set_index(["layer", "head", "statistic"])["value"].astype(float)


def test_every_statistic_at_every_layer(table):
    frame = table.shape.frame
    assert tuple(frame.columns) == SHAPE_COLUMNS
    assert set(frame["contrast"]) == {"image_text"}
    assert set(frame["side"]) == {"", "image", "text"}
    assert set(frame["statistic"]) == EXPECTED
    assert not frame.duplicated(["site", "layer", "head", "statistic", "side", "dims"]).any()
    for layer in ("0", "15", "29"):
        assert set(frame[frame["layer"] == layer]["statistic"]) == EXPECTED - {"mir"}
    assert np.isfinite(frame["value"].astype(float)).all()
    held = frame.dropna(subset="ci_low")
    assert ((held["ci_low"] <= held["value"]) & (held["value"] <= held["ci_high"])).all()


def test_numbers_fit_each_other(table, numbers):
    for layer in ("0", "15", "29"):
        of = numbers[layer]
        assert sum(of["all"][f"share_{n}"] for n in ("mean", "covariance", "higher")) == (
            pytest.approx(1.0)
        )
        heads = of[[key for key in of.index if key[1] == "head_share"]]
        assert len(heads) == 3
        assert heads.sum() == pytest.approx(1.0)
        parts = of["all"]["frechet_from_means"] + of["all"]["frechet_from_covariances"]
        assert of["all"]["frechet"] == pytest.approx(parts)
        one = table.shape.dimensions.query(f"layer == {layer}")
        assert tuple(one.columns) == DIMENSION_COLUMNS
        assert one["contribution"].sum() == pytest.approx(of["all"]["mean_difference"])
        assert len(one) == 192
        assert one["size"].median() == pytest.approx(1.0)
    distances = [numbers[layer]["all"]["mir_distance"] for layer in ("15", "29")]
    assert numbers["all"]["all"]["mir"] == pytest.approx(np.log10(sum(distances)))


def test_the_histogram_saturates_and_says_so(table):
    rows = table.shape.frame.query("statistic == 'jsd_histogram' and layer == '29'")
    rows = rows.set_index("dims")
    assert rows.loc[50, "null"] > 0.6
    assert rows.loc[2, "null"] < 0.5 * rows.loc[2, "value"]


def distances(values: dict[str, float], site: str = "key", contrast: str = "image_text"):
    return [
        {
            "model": "m", "connector": "c", "benchmark": "b", "site": site, "layer": layer,
            "contrast": contrast, "rung": "between", "statistic": "mir_distance", "value": value,
            "settings": "{}",
        }
        for layer, value in values.items()
    ]  # fmt: skip


def test_mir_adds_up_layers_without_the_first_for_each_site_and_contrast():
    frame = statistics_frame(
        [
            *distances({"0": 50.0, "1": 4.0, "2": 6.0}),
            *distances({"0": 50.0, "2": 100.0}, contrast="image_caption"),
            *distances({"0": 50.0}, site="value"),
        ]
    )
    rows, notes = mir_over_layers(frame)
    assert rows["contrast"].tolist() == ["image_text", "image_caption"]
    assert rows["value"].tolist() == pytest.approx([1.0, 2.0])
    assert set(rows["layer"]) == {"all"}
    assert rows["what"].iloc[0] == "log10 of the sum of mir_distance over layers 1, 2"
    assert notes == []


def test_mir_of_equal_sides_is_a_note():
    rows, (note,) = mir_over_layers(statistics_frame(distances({"1": 0.0})))
    assert rows.empty
    assert note.startswith("m, key: no mir of image_text: ")
