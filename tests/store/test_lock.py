"""One process at a time writes a folder; one that is killed keeps nobody out."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from keygap.errors import UserError
from keygap.store.lock import at_work, locked, refuse_unwritable
from made import files_of


def test_the_second_process_is_told_who_the_first_is(holder, tmp_path):
    before = files_of(tmp_path)
    who = rf"process {holder.pid} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    for _ in range(2):
        with pytest.raises(UserError) as error, locked(tmp_path / "run"):
            pass
        assert re.search(rf"run is being written by {who}.*: wait for it to end", str(error.value))
        assert "\n" not in str(error.value)
    assert files_of(tmp_path) == before


def test_a_killed_process_keeps_nobody_out(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").is_file()
    with locked(tmp_path / "run"):
        said = (tmp_path / "run/.lock").read_text()
        assert said.startswith(f"process {os.getpid()} on {socket.gethostname()} since ")
    assert files_of(tmp_path) == {}


def test_one_process_does_not_hold_it_twice(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="is being written"), locked(tmp_path):
        pass
    with locked(tmp_path):  # and it is free again
        pass


def test_a_command_at_work_may_lock_its_folder_again(tmp_path):
    """This thread alone; others and other processes are kept out until the end."""

    def other() -> None:
        with locked(tmp_path):
            pass

    with at_work(tmp_path), ThreadPoolExecutor(1) as pool:
        with locked(tmp_path), at_work(tmp_path):
            pass
        assert (tmp_path / ".lock").is_file()
        with pytest.raises(UserError, match="is being written by process"):
            pool.submit(other).result()
    other()
    assert files_of(tmp_path) == {}


def test_a_command_at_work_removes_half_files(tmp_path):
    temporary = f"x.csv.{'0' * 16}.tmp"
    for folder in (".", "figures", "causes", "remedy/first"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f".{temporary}").touch()
        (tmp_path / folder / "kept.tmp").touch()
    refuse_unwritable(tmp_path)
    assert {name.rpartition("/")[2] for name in files_of(tmp_path)} == {"kept.tmp"}


def test_folders_that_were_made_and_are_empty_are_removed(tmp_path):
    with locked(tmp_path / "a/b"):
        assert (tmp_path / "a/b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a/b"):
        (tmp_path / "a/b/kept").write_text("")
    assert list(files_of(tmp_path)) == ["a/b/kept"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "mine"):
        raise ZeroDivisionError
    assert (tmp_path / "mine").is_dir()


def test_a_lock_file_removed_while_it_is_taken_is_made_again(tmp_path, monkeypatch):
    """The holder before may remove the file between its being opened and being locked here."""
    flock = fcntl.flock
    calls: list[int] = []

    def late(file, operation):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(operation)
        return flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        monkeypatch.undo()
        assert len(calls) == 2
        with pytest.raises(UserError, match="is being written"), locked(tmp_path):
            pass


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with caplog.at_level(logging.WARNING, "keygap"), locked(tmp_path):
        pass
    assert "cannot be locked (No locks available): let no other process write" in caplog.text


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match=r"/file is a file: name another"),
        locked(tmp_path / "file/x"),
    ):
        pass
    assert files_of(tmp_path) == {"file": b"mine"}
