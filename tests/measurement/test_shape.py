"""Further statistics of image against text: in the table, on disk and in the report."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.errors import UserError
from keygap.measurement import shape as shape_table
from keygap.measurement.shape import ShapeRows, ShapeTable
from keygap.reporting import read_run, switches
from keygap.reporting import shape as shape_section

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
    assert list(frame.columns) == list(shape_table.COLUMNS)
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


def test_saved_and_read_back(table, tmp_path):
    table.shape.save(tmp_path)
    read = ShapeTable.read(tmp_path)
    pd.testing.assert_frame_equal(read.frame, table.shape.frame, check_dtype=False)
    pd.testing.assert_frame_equal(read.dimensions, table.shape.dimensions, check_dtype=False)


def test_nothing_measured_is_an_empty_table(tmp_path):
    ShapeRows(seed=0).table().save(tmp_path)
    read = ShapeTable.read(tmp_path)
    assert list(read.frame.columns) == list(shape_table.COLUMNS)
    assert len(read.frame) == len(read.dimensions) == 0


def test_a_new_statistic_is_one_line_and_reaches_the_report(store, tmp_path, monkeypatch):
    """And one that these vectors do not have is a note, not a number."""

    class Result:
        readings = (kg.gap.Reading("mean_norm", 7.25, "made for this test"),)

    def missing(sides):
        raise UserError("no such thing here")

    monkeypatch.setattr(shape_table, "STATISTICS", (lambda sides: Result(), missing))
    folder = tmp_path / "run"
    shutil.copytree(store.root, folder)
    measured = kg.measure(kg.Store(folder), layers=[0], n_permutations=9, n_bootstraps=9)
    assert any("layer 0: no such thing here" in note for note in measured.notes)
    measured.save(folder)
    (table,) = shape_section.tables(read_run(folder))
    assert table["layers"] == ["0"]
    assert table["rows"] == [{"name": "mean_norm", "what": "made for this test", "cells": ["7.25"]}]


def test_before_and_after_rope_stand_side_by_side():
    row = {"head": "all", "rung": "between", "contrast": "image_text", "layer": 3, "confound": ""}
    frame = pd.DataFrame(
        [
            {**row, "site": "k_proj", "mmd2": 0.3},
            {**row, "site": "k_proj", "mmd2": 0.2, "confound": "equal_counts"},
            {**row, "site": "k_proj", "mmd2": 0.9, "head": "0"},
            {**row, "site": "key", "mmd2": 0.1},
        ]
    )
    found = [(row["site"], row["switch"], row["mmd2"]) for row in switches.rows(frame)]
    assert found == [
        ("k_proj", "as it is", 0.3),
        ("k_proj", "after norm and RoPE (key)", 0.1),
        ("k_proj", "equal_counts", 0.2),
        ("key", "as it is", 0.1),
    ]
