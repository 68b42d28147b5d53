"""A damaged run is refused in one line that names the file, and its extraction mends it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

import keygap as kg
from keygap import cli
from keygap.errors import UserError
from keygap.reporting import read_run
from made import as_of_keygap_0_1, files_of

from .conftest import OTHER_VECTORS, VECTORS
from .damage import COMPUTED, EXTRACTED, OF_ANY, OF_EXTRACTION, OF_RESULTS
from .made import run_of

OTHER = ("checksums.sha256", *COMPUTED)  # extraction is not what mends these


def refusal(monkeypatch, capsys, command: str, root: Path) -> str:
    """The line of a command that refuses a run."""
    monkeypatch.setattr(sys, "argv", ["keygap", command, str(root)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err.strip()
    assert exit_.value.code == 2, said
    assert said.startswith("keygap: ")
    assert "\n" not in said
    return said


def mended(root: Path, whole: Path) -> None:
    """Extract again; the run is as it was before the damage."""
    run_of(VECTORS, root, [0])
    before = files_of(whole / "run")
    after = files_of(root)
    assert {name: after.get(name) for name in before if name not in OTHER} == {
        name: data for name, data in before.items() if name not in OTHER
    }
    assert set(after) == set(before)


@pytest.mark.parametrize("damage", OF_ANY)
@pytest.mark.parametrize("name", [*EXTRACTED, "checksums.sha256"])
def test_a_damaged_file_of_the_extraction(monkeypatch, capsys, run, whole, name, damage):
    OF_ANY[damage](run / name)
    for command in ("measure", "project", "report"):
        assert name in refusal(monkeypatch, capsys, command, run)
    with pytest.raises(UserError, match=name.rpartition("/")[2]):
        kg.Store(run).verify()
    mended(run, whole)


@pytest.mark.parametrize("damage", OF_EXTRACTION)
def test_a_damaged_extraction(monkeypatch, capsys, run, whole, damage):
    change, name = OF_EXTRACTION[damage]
    change(run)
    for command in ("measure", "project", "report"):
        said = refusal(monkeypatch, capsys, command, run)
        assert name in said
        assert "repeat the keygap extract or keygap run" in said
    mended(run, whole)


@pytest.mark.parametrize("damage", OF_ANY)
@pytest.mark.parametrize("name", COMPUTED)
def test_a_damaged_table_is_not_reported(monkeypatch, capsys, run, name, damage):
    OF_ANY[damage](run / name) if (run / name).stat().st_size else None
    if not (run / name).exists() or (run / name).is_dir() or (run / name).stat().st_size:
        assert name in refusal(monkeypatch, capsys, "report", run)


@pytest.mark.parametrize("damage", OF_RESULTS)
def test_an_edited_or_foreign_table_is_not_reported(monkeypatch, capsys, run, damage):
    change, name = OF_RESULTS[damage]
    change(run)
    said = refusal(monkeypatch, capsys, "report", run)
    assert name in said
    assert "run keygap" in said or "repeat the keygap" in said


def test_only_the_damaged_part_is_done_again(run, caplog):
    written = (run / "tokens/part-00000.parquet").stat().st_mtime_ns
    (run / "tokens/part-00001.parquet").unlink()
    with caplog.at_level(logging.WARNING, "keygap"):
        run_of(VECTORS, run, [0])
    assert "unexpected files: tokens/part-00001.parquet" in caplog.text
    assert (run / "tokens/part-00000.parquet").stat().st_mtime_ns == written
    assert read_run(run, verify=True).accuracy is not None  # results of the same vectors stay


def test_results_of_other_vectors_are_refused(run):
    """A part that is done again may differ, for instance on another device."""
    (run / "tokens/part-00001.parquet").unlink()
    run_of(OTHER_VECTORS, run, [0])
    with pytest.raises(UserError, match=r"was not written by this run.*run keygap measure"):
        read_run(run)


def test_a_run_without_checksums_is_read_with_one_note(run, caplog):
    expected = kg.Store(run).vectors("k_proj", 0)
    as_of_keygap_0_1(run)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "keygap"):
        store = kg.Store(run)
        found = store.vectors("k_proj", 0)
    assert len(caplog.messages) == 1
    assert "without verification" in caplog.messages[0]
    np.testing.assert_array_equal(found.array, expected.array)
    assert read_run(run, verify=True).summary().equals(read_run(run).summary())


@pytest.mark.slow
@pytest.mark.parametrize("damage", OF_ANY)
@pytest.mark.parametrize("name", [*EXTRACTED, *COMPUTED])
def test_damage_without_checksums_is_one_line_or_goes_unnoticed(run, name, damage):
    as_of_keygap_0_1(run)
    if not (run / name).stat().st_size:
        return
    OF_ANY[damage](run / name)
    said = ""
    try:
        store = kg.Store(run)
        store.vectors("k_proj", 0)
        read_run(run, verify=True).summary()
    except UserError as error:
        said = str(error)
    assert "\n" not in said
