"""A file is written whole or not at all, and what prevents it is one line."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keygap.errors import UserError
from keygap.store.files import marked, temporary_files, write_table, write_text
from made import files_of

TABLE = pa.table({"x": list(range(100_000))})


@contextmanager
def mounted(folder, options: str):
    """A small file system, where this user may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_text_and_tables_come_back_and_folders_are_made(tmp_path):
    write_text(tmp_path / "a/b/text.txt", "größer 大\n")
    assert (tmp_path / "a/b/text.txt").read_bytes() == "größer 大\n".encode()
    write_table(tmp_path / "a/c/table.parquet", TABLE)
    assert pq.read_table(tmp_path / "a/c/table.parquet").equals(TABLE)
    assert set(files_of(tmp_path)) == {"a/b/text.txt", "a/c/table.parquet"}


def test_a_write_that_fails_midway_leaves_the_file_before(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a pair: \ud800")
    assert files_of(tmp_path) == {"text.txt": b"before"}


def test_a_full_disk_is_one_line_and_leaves_the_file_before(tmp_path):
    with mounted(tmp_path / "small", "size=100k"):
        path = tmp_path / "small/table.parquet"
        write_table(path, TABLE.slice(0, 10))
        before = files_of(tmp_path)
        with pytest.raises(UserError, match=r"the disk of .*small is full: free some space"):
            write_table(path, pa.table({"x": os.urandom(400_000).hex().split("0")}))
        with pytest.raises(UserError, match=r"the disk of .*small is full: free some space"):
            write_text(tmp_path / "small/text.txt", "x" * 400_000)
        assert files_of(tmp_path) == before


def test_a_read_only_file_system_is_one_line(tmp_path):
    with mounted(tmp_path / "fixed", "ro"):
        with pytest.raises(UserError, match=r"fixed/a.csv cannot be written \(Read-only file sys"):
            write_text(tmp_path / "fixed/a.csv", "")
        with pytest.raises(UserError, match=r"a.parquet cannot be written \(Read-only file system"):
            write_table(tmp_path / "fixed/a.parquet", TABLE)


def test_a_path_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in ("file/a.csv", "file/below/a.csv"):
        with pytest.raises(UserError, match=rf"{path} cannot be written, .*/file is a file: name"):
            write_text(tmp_path / path, "")
    assert files_of(tmp_path) == {"file": b"mine"}


def test_a_name_that_is_too_long_or_a_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="File name too long"):
        write_text(tmp_path / ("x" * 300), "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder cannot be written \(Is a directory\)"):
        write_text(tmp_path / "folder", "")
    assert files_of(tmp_path) == {}


def test_only_our_temporary_files_are_recognised(tmp_path):
    ours = tmp_path / ".gap.csv.0123456789abcdef.tmp"
    for name in (ours.name, ".gap.csv.1234.tmp", ".mine.tmp", "gap.csv", "x.0123456789abcdef.tmp"):
        (tmp_path / name).write_text("")
    assert temporary_files(tmp_path) == [ours]
    assert temporary_files(tmp_path, "gap.*") == [ours]
    assert temporary_files(tmp_path, "jsd.csv") == []
    assert temporary_files(tmp_path / "none") == []


def test_a_mark_is_there_in_its_block_alone(tmp_path):
    path = tmp_path / "run/extraction.yaml"
    with marked(path) as mark:
        assert temporary_files(path.parent, path.name) == [mark]
        assert mark.read_bytes() == b""
    assert list(path.parent.iterdir()) == []
