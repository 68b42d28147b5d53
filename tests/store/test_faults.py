"""A full disk, a read-only folder or another writer is one line, and nothing is half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import keygap as kg
from keygap import cli
from keygap.errors import UserError
from keygap.reporting import read_run
from keygap.store import Store, StoreWriter, save_results, write_part
from made import files_of
from store.test_files import mounted

from .conftest import VECTORS
from .made import IDENTITY, part, run_of
from .test_damage import refusal

COMMANDS = ("measure", "project", "report")


def fill(folder: Path) -> None:
    """Use up the space of a file system."""
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_folder(monkeypatch, capsys, whole, tmp_path, command):
    with mounted(tmp_path / "fixed", "size=8m"):
        shutil.copytree(whole / "run", tmp_path / "fixed/run")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "fixed")], check=True)
        before = files_of(tmp_path)
        said = refusal(monkeypatch, capsys, command, tmp_path / "fixed/run")
        assert "cannot be written (Read-only file system)" in said
        assert files_of(tmp_path) == before
        assert read_run(tmp_path / "fixed/run").accuracy is not None  # reading needs no lock


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(monkeypatch, capsys, whole, tmp_path, command):
    with mounted(tmp_path / "small", "size=2m"):
        run = tmp_path / "small/run"
        shutil.copytree(whole / "run", run)
        fill(tmp_path / "small")
        before = files_of(run)
        said = refusal(monkeypatch, capsys, command, run)
        assert "is full: free some space and repeat the command" in said
        assert files_of(run) == before


def test_a_disk_that_fills_while_results_are_saved(whole, tmp_path):
    """The results before are still there, and are read."""
    with mounted(tmp_path / "small", "size=2m"):
        run = tmp_path / "small/run"
        shutil.copytree(whole / "run", run)
        table = read_run(run).table
        before = files_of(run)
        with pytest.raises(UserError, match="is full: free some space"):
            save_results(run, {"notes.txt": "new", "gap.csv": "x" * 4_000_000})
        assert files_of(run) == before
        assert read_run(run).table.frame.equals(table.frame)


def test_a_disk_that_fills_while_a_part_is_committed(tmp_path):
    """The parts before stay, and the run continues once there is space."""
    with mounted(tmp_path / "small", "size=1m"):
        root = tmp_path / "small/run"
        with StoreWriter(root, IDENTITY) as writer:
            tables = part(range(2))
            writer.commit(0, tables.samples, write_part(root, 0, tables))
        before = files_of(root)
        with StoreWriter(root, IDENTITY) as writer:
            fill(tmp_path / "small")
            tables = part(range(2, 2000))
            with pytest.raises(UserError, match="is full: free some space"):
                writer.commit(1, tables.samples, write_part(root, 1, tables))
        assert files_of(root) == before
        (tmp_path / "small/filler").unlink()
        with StoreWriter(root, IDENTITY) as writer:
            assert writer.done == {"s0", "s1"}
            tables = part(range(2, 4))
            writer.commit(1, tables.samples, write_part(root, 1, tables))
        assert len(Store(root).samples) == 4


def test_a_clock_that_was_set_back(whole, tmp_path):
    """Nothing is decided by the times of files: what is newer may look older."""
    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    before = files_of(run)
    for number, path in enumerate(sorted(run.rglob("*"))):
        year = (1971, 2099)[number % 2]
        os.utime(path, (365.25 * 86400 * (year - 1970),) * 2)
    (run / ".lock").write_text("process 1 on another since 2099-01-01 00:00:00+00:00")  # killed
    run_of(VECTORS, run, [0])
    assert files_of(run) == before
    gap = read_run(run).table.frame
    save_results(run, {"notes.txt": "later"})
    assert read_run(run).table.frame.equals(gap)
    assert not (run / ".lock").exists()


def test_a_file_size_limit_is_one_line(whole, tmp_path):
    """Another reason why a write fails in the middle, in a process of its own."""
    shutil.copytree(whole / "run", tmp_path / "run")
    before = files_of(tmp_path)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from keygap.store import save_results; from keygap.errors import UserError\n"
        "try: save_results(sys.argv[1], {'gap.csv': 'x' * 5000})\n"
        "except UserError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gap.csv cannot be written (File too large)" in run.stdout
    assert files_of(tmp_path) == before


def test_standard_output_that_is_full_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keygap", "models"])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        with suppress(OSError):
            full.close()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said == "keygap: standard output cannot be read or written: No space left on device\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_another_process_writes(
    monkeypatch, capsys, whole, tmp_path, holder, command
):
    shutil.copytree(whole / "run", tmp_path / "run", dirs_exist_ok=True)
    monkeypatch.setattr("keygap.store.lock.SHORT", 0.0)
    before = files_of(tmp_path)
    said = refusal(monkeypatch, capsys, command, tmp_path / "run")
    assert f"is being written by process {holder.pid} on " in said
    assert " since 20" in said
    assert files_of(tmp_path) == before


def test_a_run_that_is_being_extracted_is_not_read(tmp_path, holder):
    """It has no manifest yet; the line says who is writing it."""
    (tmp_path / "whole").mkdir()
    with StoreWriter(tmp_path / "whole/run", IDENTITY) as writer:
        tables = part(range(2))
        writer.commit(0, tables.samples, write_part(tmp_path / "whole/run", 0, tables))
    shutil.copytree(tmp_path / "whole/run", tmp_path / "run", dirs_exist_ok=True)
    with pytest.raises(UserError, match=f"is being written by process {holder.pid} on "):
        _ = kg.Store(tmp_path / "run").manifest
