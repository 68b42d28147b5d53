"""Results replace former results, and no file of the user's own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.files import write_table
from made import files_of

RESULTS = {
    "gap.csv": "site,layer\nkey,1\n",
    "projection.parquet": pa.table({"x": [1.0]}),
    "measurement.yaml": "text_roles:\n- question\n",
    "notes.txt": "a note",
}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("gap.csv", "age,income\n3,4\n"),
        ("gap.csv", ""),
        ("projection.parquet", "no parquet"),
        ("projection.parquet", pa.table({"mine": [1.0]})),
        ("measurement.yaml", "name: mine\n"),
        ("notes.txt", "my own"),
    ],
)
def test_a_file_of_the_users_own_is_not_replaced(tmp_path, name, own):
    if isinstance(own, str):
        (tmp_path / name).write_text(own)
    else:
        write_table(tmp_path / name, own)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=rf"{name} is there and keygap did not record it: name an"):
        save_results(tmp_path, RESULTS)
    assert files_of(tmp_path) == before


def test_former_results_are_replaced(tmp_path):
    save_results(tmp_path, RESULTS)
    (tmp_path / "measurement.yaml").unlink()  # as a save that was killed leaves the folder
    changed = RESULTS | {"gap.csv": "site,layer\nkey,2\n", "notes.txt": "another"}
    save_results(tmp_path, changed)
    assert (tmp_path / "gap.csv").read_text() == changed["gap.csv"]
    assert (tmp_path / "notes.txt").read_text() == "another"
    assert set(files_of(tmp_path)) == set(RESULTS)


@pytest.mark.parametrize("identity", ["extraction.yaml", "experiment.yaml"])
def test_results_of_another_version_in_a_run_are_replaced(tmp_path, identity):
    (tmp_path / identity).write_text("model: m\n")
    (tmp_path / "gap.csv").write_text("fewer,columns\n")
    save_results(tmp_path, RESULTS)
    assert (tmp_path / "gap.csv").read_text() == RESULTS["gap.csv"]
