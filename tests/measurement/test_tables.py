"""The tables of a run on disk: complete, read back as they were, refused if they are not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import keygap as kg
from keygap.errors import UserError
from keygap.measurement.tables import GapTable
from keygap.measurement.views import PROFILE_COLUMNS, STATISTICS_COLUMNS
from keygap.store.files import staged
from made import files_of


def test_saved_and_read_back(table, tmp_path):
    table.save(tmp_path)
    assert set(files_of(tmp_path)) == {
        "statistics.parquet", "gap.csv", "jsd.csv", "shape.csv", "dimensions.csv",
        "measurement.yaml", "notes.txt",
    }  # fmt: skip
    read = GapTable.read(tmp_path)
    assert (read.notes, read.settings) == (table.notes, table.settings)
    for name in ("frame", "profile", "statistics"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(table, name), check_dtype=False)
    pd.testing.assert_frame_equal(read.shape.frame, table.shape.frame, check_dtype=False)
    pd.testing.assert_frame_equal(read.shape.dimensions, table.shape.dimensions, check_dtype=False)
    pd.testing.assert_frame_equal(read.summary(), table.summary())


def test_other_programs_read_the_tables(table, tmp_path):
    table.save(tmp_path)
    long = pd.read_parquet(tmp_path / "statistics.parquet")
    assert tuple(long.columns) == STATISTICS_COLUMNS
    assert long["n_samples"].dtype.kind in "if"
    gap = pd.read_csv(tmp_path / "gap.csv", dtype={"head": str})
    gap["confound"] = gap["confound"].fillna("")
    pd.testing.assert_frame_equal(gap, table.frame, check_dtype=False)
    assert set(pd.read_csv(tmp_path / "jsd.csv")["jsd_dim"]) == {2, 5, 10, 50}


def test_every_contrast_confound_and_head_is_in_the_long_table(table):
    """One row of mmd2 for each row of gap.csv, with equal numbers."""
    long = table.statistics
    key = ["site", "layer", "head", "contrast", "confound"]
    assert not long.duplicated([*key, "statistic", "side", "dims"]).any()
    wide = table.frame.astype({"layer": str}).set_index(key)
    rows = long[long["statistic"] == "mmd2"].set_index(key)
    assert rows.index.equals(wide.index)
    assert (rows["value"] == wide["mmd2"]).all()
    assert (rows["p_holm"] == wide["p_holm"]).all()
    assert (rows["null_high"] == wide["mmd2_null_high"]).all()
    settings = [json.loads(text) for text in rows["settings"]]
    assert [one["bandwidth"] for one in settings] == wide["bandwidth"].tolist()
    assert {one["kernel"] for one in settings} == {"gaussian"}
    ratios = long[long["statistic"] == "mmd2_ratio"].set_index(key)
    assert ratios["value"].equals(wide.loc[ratios.index, "ratio"].rename("value"))
    assert len(ratios) == wide["ratio"].notna().sum()


def test_what_was_asked_is_saved_beside_the_tables(store, table, tmp_path):
    table.save(tmp_path)
    asked = yaml.safe_load((tmp_path / "measurement.yaml").read_text())
    assert asked == table.settings
    assert asked["text_roles"] == ["question"]
    assert (asked["n_permutations"], asked["n_bootstraps"], asked["seed"]) == (200, 200, 0)
    assert asked["contrasts"][0] == {
        "name": "image_text", "rung": "between", "what": "image tokens, text of the chosen roles"
    }  # fmt: skip
    assert "image_sink" in [item["name"] for item in asked["contrasts"]]  # though not measured
    options: dict[str, Any] = {
        "n_permutations": 1,
        "n_bootstraps": 1,
        "layers": [0],
        "contrasts": ["image_text"],
    }
    other = kg.measure(store, text_roles=["question", "template"], **options)
    assert other.main["n_b"].iloc[0] > table.main.query("contrast == 'image_text'")["n_b"].iloc[0]
    other.save(tmp_path)
    again = yaml.safe_load((tmp_path / "measurement.yaml").read_text())
    assert again["text_roles"] == ["question", "template"]


def test_a_save_that_fails_leaves_the_measurement_before(table, tmp_path, monkeypatch):
    table.save(tmp_path)
    before = files_of(tmp_path)

    def full(path, content):
        if path.name == "shape.csv":
            raise UserError("the disk is full")
        return staged(path, content)

    monkeypatch.setattr("keygap.store.results.staged", full)
    changed = replace(table, notes=("another",), frame=table.frame.iloc[:3])
    with pytest.raises(UserError, match="disk is full"):
        changed.save(tmp_path)
    assert files_of(tmp_path) == before


def test_a_measurement_without_its_settings_is_refused(table, tmp_path):
    """As a save that was killed leaves it."""
    table.save(tmp_path)
    (tmp_path / "measurement.yaml").unlink()
    with pytest.raises(UserError, match=r"does not say how it was measured.*run keygap measure"):
        GapTable.read(tmp_path)


def test_a_run_with_nothing_to_measure_keeps_its_columns(store, tmp_path):
    none = kg.measure(store, layers=[0], contrasts=["image_sink"])
    assert none.frame.empty
    none.save(tmp_path)
    read = GapTable.read(tmp_path)
    assert tuple(read.profile.columns) == PROFILE_COLUMNS
    assert tuple(read.statistics.columns) == STATISTICS_COLUMNS
    assert len(read.shape.frame) == len(read.shape.dimensions) == len(read.statistics) == 0


def test_a_folder_that_was_not_measured_is_refused(tmp_path):
    with pytest.raises(UserError, match="was not measured: run keygap measure"):
        GapTable.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "column"),
    [("gap.csv", "mmd2_null_low"), ("jsd.csv", "jsd_dim"), ("shape.csv", "contrast")],
)
def test_a_table_of_another_version_is_refused_in_one_line(table, tmp_path, name, column):
    table.save(tmp_path)
    path = tmp_path / name
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(UserError, match=f"no column {column}.*run keygap measure") as error:
        GapTable.read(tmp_path)
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="run keygap measure"):
        GapTable.read(tmp_path)


def test_a_folder_without_the_long_table_is_refused_in_one_line(table, tmp_path):
    """As the version before wrote it."""
    table.save(tmp_path)
    (tmp_path / "statistics.parquet").unlink()
    with pytest.raises(UserError, match=r"another version \(no statistics.parquet\): run keygap"):
        GapTable.read(tmp_path)


def test_tables_need_neither_torch_nor_a_statistic():
    code = (
        "import sys, keygap.measurement.tables, keygap.contrasts\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'keygap.gap'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_numbers_of_numpy_are_saved(store, tmp_path):
    seed: Any = np.arange(3)[2]
    few: Any = np.int64(9)
    table = kg.measure(
        store, layers=[0], contrasts=["image_text"], seed=seed, n_permutations=few, n_bootstraps=few
    )
    table.save(tmp_path)
    assert GapTable.read(tmp_path).settings["seed"] == 2
