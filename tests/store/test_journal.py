"""A commit is one line; a line that is not whole is no commit; a reader sees those that are."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from keygap.errors import UserError
from keygap.store import Store, StoreWriter, recovery, write_part
from keygap.store.journal import Commit, append, read_journal, with_rows
from keygap.store.schema import SAMPLES_SCHEMA
from made import files_of
from store.test_files import mounted

from .made import IDENTITY, part

KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from store.made import IDENTITY, part
from keygap.store import StoreWriter, write_part
root = Path({root!r})
with StoreWriter(root, IDENTITY) as writer:
    for number in range(3):
        tables = part(range(2 * number, 2 * number + 2), failed=(4,))
        writer.commit(number, tables.samples, write_part(root, number, tables))
    os.kill(os.getpid(), 9)
"""


def written(root: Path, numbers, finish: bool = False) -> None:
    with StoreWriter(root, IDENTITY) as writer:
        for number in numbers:
            tables = part(range(2 * number, 2 * number + 2), failed=(4,))
            writer.commit(number, tables.samples, write_part(root, number, tables))
        if finish:
            writer.write_manifest({"n": 1})


@pytest.fixture
def killed(tmp_path) -> Path:
    """A run of three parts whose writer was killed before it left."""
    root = tmp_path / "killed"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), root=str(root))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (root / ".lock").unlink()
    return root


def test_a_reader_sees_what_a_killed_writer_committed(killed, tmp_path):
    assert not (killed / "samples.parquet").exists()
    written(tmp_path / "left", range(3))
    found, expected = Store(killed), Store(tmp_path / "left")
    assert found.samples.equals(expected.samples)
    assert found.samples["failure"].dropna().to_dict() == {4: "broken"}
    assert (found.vectors("k_proj", 3).array == expected.vectors("k_proj", 3).array).all()
    found.verify()


def test_the_next_writer_continues_and_leaves_no_journal(killed, tmp_path):
    with StoreWriter(killed, IDENTITY) as writer:
        assert writer.done == {f"s{n}" for n in range(6)}
        assert writer.failures == {"s4": "broken"}
    written(killed, [3], finish=True)
    written(tmp_path / "whole", range(4), finish=True)
    assert files_of(killed) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("kept", [0, 1, 40, -2, -1])
def test_a_line_that_was_cut_short_is_no_commit(killed, tmp_path, kept):
    """Of the last line, so many bytes are on disk."""
    path = killed / "journal.jsonl"
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + last[:kept])
    expected = 6 if kept == -1 else 4  # the end of the line is not needed
    assert len(Store(killed).samples) == expected
    with StoreWriter(killed, IDENTITY) as writer:
        assert len(writer.done) == expected
    written(killed, range(expected // 2, 3), finish=True)
    written(tmp_path / "whole", range(3), finish=True)
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_nothing_after_a_damaged_line_counts(killed):
    path = killed / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"s2", b"s9", 1)
    path.write_bytes(b"".join(lines))
    assert Store(killed).samples["sample_id"].tolist() == ["s0", "s1"]


def test_a_writer_that_was_killed_while_it_left_has_each_row_once(killed, tmp_path):
    """Its rows are in both files then."""
    journal = (killed / "journal.jsonl").read_bytes()
    with StoreWriter(killed, IDENTITY):
        pass
    (killed / "journal.jsonl").write_bytes(journal)
    assert Store(killed).samples["sample_id"].tolist() == [f"s{n}" for n in range(6)]
    written(killed, [], finish=True)
    written(tmp_path / "whole", range(3), finish=True)
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_a_commit_writes_as_much_late_as_early(tmp_path, monkeypatch):
    """No file of the whole run is written again."""
    sizes = []
    with StoreWriter(tmp_path, IDENTITY) as writer:
        for number in range(12):
            tables = part(range(100 + 2 * number, 102 + 2 * number))
            files = write_part(tmp_path, number, tables)
            before = files_of(tmp_path)
            writer.commit(number, tables.samples, files)
            after = files_of(tmp_path)
            changed = {name for name in after if after[name] != before.get(name)}
            assert changed == {"journal.jsonl"}
            name = "journal.jsonl"
            assert after[name].startswith(before.get(name, b""))
            sizes.append(len(after[name]) - len(before.get(name, b"")))
    assert len(set(sizes)) == 1


def test_a_line_that_does_not_fit_on_the_disk_leaves_those_before(tmp_path):
    with mounted(tmp_path / "small", "size=64k"):
        root = tmp_path / "small"
        few, many = (Commit(part(range(count)).samples, {}) for count in (2, 2000))
        append(root, few)
        before = (root / "journal.jsonl").read_bytes()
        with suppress(OSError), (root / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(UserError, match="is full: free some space"):
            append(root, many)
        assert (root / "journal.jsonl").read_bytes() == before
        assert [commit.samples for commit in read_journal(root)] == [few.samples]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interrupt_while_a_killed_run_is_verified_changes_nothing(killed, monkeypatch, error):
    before = files_of(killed)

    def interrupted(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "verify", interrupted)
        with pytest.raises(error):
            StoreWriter(killed, IDENTITY).__enter__()
    assert files_of(killed) == before
    written(killed, [3])
    assert len(Store(killed).samples) == 8


def test_a_run_whose_journal_cannot_be_emptied_keeps_it(tmp_path, monkeypatch):
    """The disk may be full, or a second interrupt may come, before anything is in another file."""
    root = tmp_path / "run"

    def full(*arguments: object) -> None:
        raise UserError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "_write_whole", full)
        written(root, range(2))
    assert not (root / "samples.parquet").exists()
    written(root, [2])
    assert list(Store(root).samples["sample_id"]) == [f"s{n}" for n in range(6)]


def test_a_long_journal_is_read_in_a_time_that_grows_with_its_length(monkeypatch):
    """Its rows are put together at once."""
    commits = [Commit(part(range(2 * n, 2 * n + 2)).samples, {}) for n in range(40)]
    calls = []
    concatenated = pa.concat_tables

    def counted(tables):
        calls.append(len(tables))
        return concatenated(tables)

    monkeypatch.setattr("pyarrow.concat_tables", counted)
    rows = with_rows(SAMPLES_SCHEMA.empty_table(), commits)
    assert rows["sample_id"].to_pylist() == [f"s{n}" for n in range(80)]
    assert calls == [41]
