"""The tables of a specification curve: what is saved is what is read, and nothing else is."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import keygap as kg
from choices.simulated import choices_table
from keygap.choices.tables import (
    COLUMNS,
    FACTORS,
    FILES,
    SETTINGS,
    ChoicesTable,
    levels_of,
    percent,
    read_choices,
    row_ids,
    share_cell,
)
from keygap.store.checksums import read_checksums, write_checksums


@pytest.fixture(scope="module")
def table() -> ChoicesTable:
    return choices_table({"mmd": 300, "jsd": 100})


def test_what_is_saved_is_read(table, tmp_path):
    write_checksums(tmp_path, {})
    table.save(tmp_path)
    assert set(read_checksums(tmp_path) or {}) == set(FILES)
    found = read_choices(tmp_path)
    assert list(found.frame.columns) == list(COLUMNS)
    assert np.isinf(found.frame["ratio"]).sum() == np.isinf(table.frame["ratio"]).sum() > 0
    pd.testing.assert_frame_equal(found.frame, table.frame, check_dtype=False)
    pd.testing.assert_frame_equal(found.statements, table.statements, check_dtype=False)
    pd.testing.assert_frame_equal(found.variance, table.variance, check_dtype=False)
    assert found.settings == table.settings


def test_names_that_pandas_reads_as_missing_stay_names(table, tmp_path):
    changed = ChoicesTable(
        table.frame.assign(model="NA"),
        table.statements.assign(model="NA", benchmark="null"),
        table.variance,
        table.settings,
    )
    changed.save(tmp_path)
    found = read_choices(tmp_path)
    assert set(found.frame["model"]) == {"NA"}
    assert set(found.statements["benchmark"]) == {"null"}
    assert set(found.frame.loc[found.frame["measure"] == "jsd", "bias"]) == {""}


def test_an_empty_table_is_read_with_its_columns(table, tmp_path):
    empty = ChoicesTable(
        table.frame.head(0), table.statements.head(0), table.variance.head(0), table.settings
    )
    empty.save(tmp_path)
    found = read_choices(tmp_path)
    assert list(found.frame.columns) == list(COLUMNS)
    assert found.summary().empty


def test_a_folder_without_choices_is_refused(tmp_path):
    with pytest.raises(kg.UserError, match=r"no choices\.parquet: run keygap choices"):
        read_choices(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(table, tmp_path, name):
    write_checksums(tmp_path, {})
    table.save(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(kg.UserError, match=name.replace(".", r"\.")):
        read_choices(tmp_path)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_a_report_needs_must_be_there(table, tmp_path, name):
    settings = {key: value for key, value in table.settings.items() if key != name}
    ChoicesTable(table.frame, table.statements, table.variance, settings).save(tmp_path)
    with pytest.raises(kg.UserError, match=rf"choices\.yaml is damaged \(no {name}\)"):
        read_choices(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rules", ["one"], "list of rule and reason"),
        ("notes", "one", "notes are not a list"),
        ("published", [0.4], "published numbers are not a mapping"),
    ],
)
def test_settings_of_another_shape_are_refused(table, tmp_path, name, value, said):
    settings = {**table.settings, name: value}
    ChoicesTable(table.frame, table.statements, table.variance, settings).save(tmp_path)
    with pytest.raises(kg.UserError, match=said):
        read_choices(tmp_path)


def test_text_in_a_column_of_numbers_is_refused(table, tmp_path):
    table.save(tmp_path)
    frame = table.frame.assign(ratio="much")
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "choices.parquet")
    with pytest.raises(kg.UserError, match=r"choices\.parquet is damaged .*run keygap choices"):
        read_choices(tmp_path)


def test_ids_are_of_the_levels_and_of_nothing_else(table):
    frame = table.frame
    assert frame["row"].str.fullmatch("[0-9a-f]{12}").all()
    assert frame["row"].is_unique
    shuffled = frame.sample(frac=1, random_state=0).assign(cross=0.0, connector="?", n_image=1)
    assert row_ids(shuffled) == shuffled["row"].tolist()
    for name in ("model", "benchmark", "site", *FACTORS):
        other = row_ids(frame.head(1).assign(**{name: 7}))
        assert other != row_ids(frame.head(1)), name


def test_levels_are_in_the_order_of_tables(table):
    frame = pd.DataFrame(
        {
            "layer": ["10", "last", "9", "first"],
            "tokens": [5000, 200, 1000, 200],
            "estimator": ["joint_50_100", "linear", "joint_9_10", "gaussian_median"],
            "model": ["b", "a", "b", "a"],
        }
    )
    assert levels_of(frame, "layer") == ["first", "last", "9", "10"]
    assert levels_of(frame, "tokens") == ["200", "1000", "5000"]
    assert levels_of(frame, "estimator") == [
        "gaussian_median", "linear", "joint_50_100", "joint_9_10",
    ]  # fmt: skip
    assert levels_of(frame, "model") == ["b", "a"]
    assert levels_of(table.frame, "heads") == ["together", "mean", "0", "1", "2"]


def test_a_summary_has_a_row_per_statement_with_its_interval(table):
    summary = table.summary()
    assert len(summary) == len(table.statements) == 18
    first, row = table.statements.iloc[0], summary.iloc[0]
    assert (row["statement"], row["model"]) == (first["statement"], first["model"])
    low, high = (100 * first[name] for name in ("share_low", "share_high"))
    assert row["share"].startswith(f"{percent(first['share'])} % (")
    assert low < 100 * first["share"] < high + 1e-9
    assert row["choices"] == first["n_choices"]


def test_a_long_summary_is_pooled_over_models():
    many = choices_table({"mmd": 400, "jsd": 200}, models={f"m{n}": 0.1 * n for n in range(9)})
    summary = many.summary()
    assert len(summary) == 6
    own = many.statements[many.statements["statement"] == "tenfold"]
    (row,) = summary[summary["statement"] == "tenfold"].to_dict("records")
    assert row["model"] == "9 models"
    assert row["benchmark"] == "easy-vqa"
    assert row["choices"] == own["n_choices"].sum()
    assert row["share"] == f"{percent(own['share'].min())} to {percent(own['share'].max())} %"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0"), (1.0, "100"), (0.999, "> 99"), (0.001, "< 1"), (0.5, "50"), (0.954, "95")],
)
def test_a_share_that_is_not_all_never_reads_100(share, text):
    assert percent(share) == text


def test_a_share_without_an_interval_has_none():
    row = {"share": 0.5, "share_low": math.nan, "share_high": math.nan}
    assert share_cell(row) == "50 %"
    assert share_cell({**row, "share_low": 0.4, "share_high": 0.6}) == "50 % (40 to 60)"
    assert share_cell({**row, "share": math.nan}) == ""


def test_the_representation_is_short(table):
    assert repr(table) == (
        "ChoicesTable(400 choices (300 mmd, 100 jsd) of 3 models on 1 benchmark, 5 statements)"
    )


def test_the_tables_are_read_without_torch():
    code = "import sys, keygap.choices.tables\nprint({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_of_the_room_are_imported_on_first_use():
    from keygap import choices

    assert choices.read_choices is read_choices
    assert dir(choices) == ["ChoicesTable", "Plan", "again", "read_choices", "specifications"]
    with pytest.raises(AttributeError, match="no attribute 'read_choice'"):
        choices.read_choice  # noqa: B018
