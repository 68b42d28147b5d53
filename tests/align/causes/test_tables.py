"""The tables of the experiment: what is saved is what is read, and intervals are over samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import keygap as kg
from align.causes.handmade import rows
from align.causes.simulated import causes_table, few_points, point
from keygap.align.causes.tables import (
    FRAME_COLUMNS,
    POINT_COLUMNS,
    CausesTable,
    point_rows,
    points_of,
    read_causes,
    strongest,
)
from keygap.store.checksums import write_checksums


@pytest.fixture(scope="module")
def table() -> CausesTable:
    return causes_table("attention", n=20, points=few_points(), n_bootstraps=20)


def test_what_is_saved_is_read(table, tmp_path):
    write_checksums(tmp_path, {})
    table.save(tmp_path)
    found = read_causes(tmp_path)
    pd.testing.assert_frame_equal(found.frame, table.frame, check_dtype=False)
    pd.testing.assert_frame_equal(found.samples, table.samples)
    assert found.settings == table.settings
    assert list(found.points["mass"].iloc[:2]) == ["", "free"]


def test_names_that_pandas_reads_as_missing_stay_names(table, tmp_path):
    frame = table.frame.assign(model="NA", name="null")
    CausesTable(frame, table.samples, table.settings).save(tmp_path)
    found = read_causes(tmp_path).frame
    assert set(found["model"]) == {"NA"}
    assert set(found["name"]) == {"null"}


def test_a_folder_without_the_experiment_is_refused(tmp_path):
    with pytest.raises(kg.UserError, match=r"no alignment\.csv: run keygap causes"):
        read_causes(tmp_path)


@pytest.mark.parametrize("name", ["alignment.csv", "alignment_samples.parquet", "causes.yaml"])
def test_a_changed_file_is_refused(table, tmp_path, name):
    write_checksums(tmp_path, {})
    table.save(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(kg.UserError, match=name):
        read_causes(tmp_path)


def test_settings_that_a_report_needs_must_be_there(table, tmp_path):
    settings = {name: value for name, value in table.settings.items() if name != "reading_layers"}
    CausesTable(table.frame, table.samples, settings).save(tmp_path)
    with pytest.raises(kg.UserError, match=r"causes\.yaml is damaged \(no reading_layers\)"):
        read_causes(tmp_path)


def found_of(frame: pd.DataFrame, measure: str, variant: str) -> pd.Series:
    (row,) = frame[(frame["measure"] == measure) & (frame["variant"] == variant)].to_dict("records")
    return pd.Series(row)


ABOUT = {"model": "m", "benchmark": "b", **point()}


def test_the_measures_of_a_point_by_hand():
    samples = rows(
        "p",
        {
            "hint_margin": np.array([[1.0, 2.0], [-1.0, 1.0], [-2.0, -4.0], [-1.0, -3.0]]),
            "correct": np.array([True, True, True, False]),
            "margin": np.array([1.0, 2.0, 3.0, -1.0]),
        },
    )
    frame = point_rows(samples, ABOUT, n_bootstraps=50, seed=0)
    assert list(frame.columns) == list(FRAME_COLUMNS)
    assert set(frame["layer"]) == {-1}
    expected = {  # by measure and phrasing: value and observations
        ("following", "v0"): (1 / 4, 4), ("following", "v1"): (2 / 4, 4),
        ("following", "all"): (3 / 8, 8), ("accuracy_conflict", "all"): (5 / 8, 8),
        ("tpr", "all"): (3 / 6, 6), ("hint_margin", "v0"): (-3 / 4, 4),
        ("hint_margin", "all"): (-7 / 8, 8), ("accuracy", ""): (3 / 4, 4),
        ("margin", ""): (5 / 4, 4), ("gap", ""): (3.0, 4), ("image_attention", ""): (0.2, 4),
    }  # fmt: skip
    for (measure, variant), (value, n) in expected.items():
        row = found_of(frame, measure, variant)
        assert (row["value"], row["n"]) == (pytest.approx(value), n), measure
        assert row["ci_low"] <= value + 1e-9 <= row["ci_high"] + 2e-9
    wilson = binomtest(3, 4).proportion_ci(method="wilson")
    accuracy = found_of(frame, "accuracy", "")
    assert (accuracy["ci_low"], accuracy["ci_high"]) == pytest.approx((wilson.low, wilson.high))


def test_phrasings_of_a_sample_are_no_further_samples():
    margin = np.array([1.0, -1.0] * 20)
    once = point_rows(rows("p", {"hint_margin": margin}, 1), ABOUT, n_bootstraps=200, seed=0)
    many = point_rows(rows("p", {"hint_margin": margin}, 8), ABOUT, n_bootstraps=200, seed=0)
    for measure in ("following", "hint_margin"):
        widths = [
            row["ci_high"] - row["ci_low"]
            for row in (found_of(frame, measure, "all") for frame in (once, many))
        ]
        assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_generated_answers_have_shares_and_no_margins():
    samples = rows("p", {"hint_margin": np.array([1.0, -1.0, -1.0])})
    samples = samples.assign(hint_margin=np.nan, hint_effect=np.nan, margin=np.nan)
    samples["followed"] = samples["followed"].astype(object)
    samples.loc[0, "followed"] = None
    frame = point_rows(samples, ABOUT, n_bootstraps=20, seed=0)
    assert found_of(frame, "following", "all")["n"] == 5
    assert np.isnan(found_of(frame, "hint_margin", "all")["value"])


def test_a_value_without_a_hint_must_not_depend_on_it():
    samples = rows("p", {"hint_margin": np.zeros(3), "margin": np.array([[0.0, 1.0]] * 3)})
    with pytest.raises(ValueError, match="margin is without a hint"):
        point_rows(samples, ABOUT, n_bootstraps=10, seed=0)


def test_the_summary_has_the_strongest_strengths_and_pools_draws():
    table = causes_table("attention", n=20, n_bootstraps=20)
    summary = table.summary()
    own = summary[(summary["name"] == "mean-shift") & (summary["layers"] == "all")]
    assert set(own["strength"]) == {-1.0, 1.0}
    (random,) = summary[
        (summary["name"] == "random-direction") & (summary["mass"] == "held")
    ].to_dict("records")
    assert random["draws"] == 5
    ids = table.points.loc[
        (table.points["kind"] == "control") & (table.points["mass"] == "held"), "point"
    ]
    margins = table.samples[table.samples["point"].isin(ids)].drop_duplicates(
        ["point", "sample_id"]
    )
    means = margins.groupby("point")["margin"].mean()
    assert random["margin"] == f"{means.mean():.2f} ({means.min():.2f} to {means.max():.2f})"
    assert (summary["kind"] == "baseline").sum() == 3
    assert len(summary) < len(table.points)


def test_the_strongest_is_taken_on_each_side_of_0():
    strengths = [-1.0, -0.5, 0.5, 2.0]
    points = pd.DataFrame([point("map", "m", "key", "all", each, "free") for each in strengths])
    assert list(strongest(points)["strength"]) == [-1.0, 2.0]


def test_points_and_representation(table):
    assert list(points_of(table.frame).columns) == list(POINT_COLUMNS)
    assert repr(table) == (
        "CausesTable(made:model on easy-vqa: 12 points (1 none, 6 map, 5 control), 20 samples, "
        "4 phrasings)"
    )
