"""A file that cannot be read at the moment is not taken for a damaged one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keygap.errors import CannotRead, UserError
from keygap.store import Store, StoreWriter, save_results
from keygap.store.mirror import mirrored
from keygap.store.reading import read_blocks, read_rows
from keygap.store.results import is_whole, record_results
from made import files_of

from .made import IDENTITY
from .test_writer import written

REASONS = [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE]
OF_THE_RUN = [
    *("checksums.sha256", "samples.parquet", "extraction.yaml", "manifest.json"),
    *("tokens/part-00001.parquet", "vectors/site=k_proj/layer=3/part-00000.parquet"),
]


@pytest.fixture
def unreadable(monkeypatch):
    """Let every attempt to open some files fail for a reason, until it is undone."""

    def fail(name: str, reason: int = errno.EIO) -> None:
        opened = Path.open

        def refuse(self: Path, *arguments, **options):
            if self.as_posix().endswith(f"/{name}"):
                raise OSError(reason, os.strerror(reason), str(self))
            return opened(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)

    return fail


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run with a result."""
    written(tmp_path / "run", range(3))
    save_results(tmp_path / "run", {"gap.csv": "x"})
    return tmp_path / "run"


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_writer_changes_nothing(run, monkeypatch, unreadable, caplog, name, reason):
    before = files_of(run)
    unreadable(name, reason)
    line = rf"{name} cannot be read \({os.strerror(reason)}\): check .* repeat the command"
    with pytest.raises(CannotRead, match=line):
        StoreWriter(run, IDENTITY).__enter__()
    monkeypatch.undo()
    assert files_of(run) == before
    with StoreWriter(run, IDENTITY) as writer:
        assert len(writer.done) == 6
        assert not writer.damaged
    assert files_of(run) == before
    assert not caplog.messages


def test_a_journal_that_cannot_be_read_is_not_empty(tmp_path, monkeypatch, unreadable):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "_leave", lambda self: None)
        written(run, range(2), finish=False)
    before = files_of(run)
    unreadable("journal.jsonl")
    for command in (Store, lambda root: StoreWriter(root, IDENTITY).__enter__()):
        with pytest.raises(CannotRead, match=r"journal.jsonl cannot be read \(Input/output error"):
            command(run)
    monkeypatch.undo()
    assert files_of(run) == before
    assert len(Store(run).samples) == 4


def test_a_folder_in_the_place_of_the_journal_is_one_line(run):
    (run / "journal.jsonl").mkdir()
    before = files_of(run)
    for command in (Store, lambda root: StoreWriter(root, IDENTITY).__enter__()):
        with pytest.raises(UserError, match=r"journal.jsonl cannot be read \(Is a dir.*: remove"):
            command(run)
    assert files_of(run) == before


@pytest.mark.parametrize("name", ["checksums.sha256", "gap.csv"])
def test_a_result_is_not_made_again(run, unreadable, name):
    unreadable(name)
    with pytest.raises(CannotRead, match=f"{name} cannot be read"):
        is_whole(run, "gap.csv")


def test_the_checksums_of_a_study_are_not_begun_again(run, monkeypatch, unreadable):
    before = files_of(run)
    unreadable("checksums.sha256")
    with pytest.raises(CannotRead, match=r"checksums.sha256 cannot be read"):
        record_results(run, {"study.yaml": "x"}, begin=True)
    monkeypatch.undo()
    assert files_of(run) == before


@pytest.mark.parametrize("name", ["samples.parquet", "manifest.json", "extraction.yaml"])
def test_a_copy_ends_in_one_line(run, tmp_path, unreadable, name):
    with (
        mirrored((tmp_path / "copy").as_uri(), run, IDENTITY) as copy,
        StoreWriter(run, IDENTITY),
    ):
        assert copy is not None
        unreadable(name)
        with pytest.raises(CannotRead, match=f"{name} cannot be read"):
            _copy_all(copy)


def _copy_all(copy) -> None:
    copy._say_what_it_is()
    copy.finish()


@pytest.mark.parametrize("path", ["missing", "secret"])
def test_a_table_is_said_to_be_damaged_only_if_it_was_read(tmp_path, monkeypatch, path):
    def refused(*arguments, **options):
        number = errno.ENOENT if path == "missing" else errno.EACCES
        raise OSError(number, "a long message of pyarrow")

    monkeypatch.setattr("pyarrow.parquet.read_table", refused)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refused)
    said = "is missing: do" if path == "missing" else r"cannot be read \(Permission denied\)"
    with pytest.raises(UserError, match=said):
        read_rows(tmp_path / path, "do", None, [])
    with pytest.raises(UserError, match=said):
        list(read_blocks(tmp_path / path, "do", ["x"], 1))
