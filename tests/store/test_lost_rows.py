"""A run that lost its rows is extracted again; results stay if the vectors are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from keygap.store import PartTables, Store, StoreWriter, save_results, write_part
from keygap.store.checksums import read_checksums
from keygap.store.schema import SAMPLES_SCHEMA
from made import files_of

from .made import IDENTITY, part
from .test_writer import written


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with a result and without its rows, and beside it a whole one."""
    for name in ("run", "whole"):
        written(tmp_path / name, range(3))
        save_results(tmp_path / name, {"gap.csv": "x"})
    (tmp_path / "run/samples.parquet").unlink()
    return tmp_path / "run"


def other(number: int) -> PartTables:
    """A part of the same samples with other vectors."""
    tables = part(range(2 * number, 2 * number + 2))
    vectors = {}
    for place, table in tables.vectors.items():
        nine = pa.array(np.full(len(table), 9, np.float32))
        column = table.schema.get_field_index("attention")
        vectors[place] = table.set_column(column, table.schema.field(column), nine)
    return replace(tables, vectors=vectors)


def commit(run: Path, number: int, tables: PartTables, finish: bool = False) -> None:
    with StoreWriter(run, IDENTITY) as writer:
        writer.commit(number, tables.samples, write_part(run, number, tables))
        if finish:
            writer.write_manifest({"n_samples": len(writer.done)})


def test_results_of_the_same_vectors_stay(run, tmp_path):
    written(run, range(3))
    assert files_of(run) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("changed", [{0}, {2}, {0, 1, 2}])
def test_results_of_other_vectors_are_recorded_no_longer(run, changed):
    """Each part by a writer of its own, as after a kill."""
    for number in range(3):
        tables = other(number) if number in changed else part(range(2 * number, 2 * number + 2))
        commit(run, number, tables, finish=number == 2)
        recorded = read_checksums(run)
        assert recorded is not None
        assert ("gap.csv" in recorded) == (number < min(changed))
    store = Store(run)
    store.verify()
    assert store.samples["sample_id"].tolist() == [f"s{n}" for n in range(6)]


def test_a_kill_before_the_commit_does_not_hide_that_the_vectors_are_others(run):
    """The files are on disk, and the writer that continues finds them damaged."""
    with StoreWriter(run, IDENTITY):
        write_part(run, 0, other(0))
    for number in range(3):
        commit(run, number, other(number), finish=number == 2)
    assert "gap.csv" not in (read_checksums(run) or {})
    Store(run).verify()


def test_a_part_whose_samples_all_fail_now_has_no_files(run):
    for number in range(3):
        tables = part(range(2 * number, 2 * number + 2))
        if number == 0:
            rows = [{"sample_id": name, "failure": "broken"} for name in ("s0", "s1")]
            tables = PartTables(pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA), None, {})
        commit(run, number, tables, finish=number == 2)
    assert "gap.csv" not in (read_checksums(run) or {})
    store = Store(run)
    store.verify()
    assert store.parts("tokens") == [1, 2]
    assert len(store.samples) == 6


def test_the_rows_before_are_not_written_again_for_each_part(run):
    """A long run would take the square of its length."""
    with StoreWriter(run, IDENTITY) as writer:
        for number in range(3):
            tables = other(number)
            writer.commit(number, tables.samples, write_part(run, number, tables))
            assert not (run / "samples.parquet").exists()
