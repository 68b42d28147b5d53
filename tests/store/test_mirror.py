"""A copy at an address follows a run, another machine continues from it, and stores may fail.

The file systems are fsspec's own: one in memory, and one on a disk that is made to fail.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import keygap as kg
from keygap.engines.distributed import Work
from keygap.errors import UserError
from keygap.store import claim, objects
from keygap.store.files import write_bytes
from keygap.store.journal import Commit, commit_of, line_of
from keygap.store.mirror import COMMITS, SENT, Mirror
from keygap.store.results import save_results
from made import bench_of, files_of
from store.unsteady import ADDRESS, Unsteady, claim_of, copied
from survival import on_other_nodes


@pytest.fixture(autouse=True)
def unsteady(monkeypatch) -> Iterator[type[Unsteady]]:
    monkeypatch.setattr(Unsteady, "fails", 0)
    monkeypatch.setattr(objects, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 2)
    yield Unsteady
    Unsteady.store.clear()
    Unsteady.pseudo_dirs[:] = [""]
    Unsteady.writes.clear()


@pytest.fixture
def asked(good_samples) -> dict[str, Any]:
    return {"source": bench_of(good_samples), "layers": [0, 1], "batch_size": 2}


def stop_at(vlm, monkeypatch, count: int) -> None:
    """Interrupt a run in this forward pass after the self-check."""
    real, seen = type(vlm).forward, []

    def forward(self, batch, **keywords):
        seen.append(batch)
        if len(seen) == count:
            raise KeyboardInterrupt
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)


def test_the_copy_of_a_finished_run_is_the_folder_file_by_file(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied() == files_of(tmp_path / "run")
    written = [name for name in Unsteady.writes if not name.endswith(".lock")]
    commits = [place for place, name in enumerate(written) if f"/{COMMITS}/" in name]
    for number, place in enumerate(commits):  # after the files of their part
        part = [p for p, name in enumerate(written) if name.endswith(f"part-0000{number}.parquet")]
        assert len(part) == 4
        assert max(part) < place
    assert written[-1].endswith("manifest.json")
    before = len(written)
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    again = [name for name in Unsteady.writes if not name.endswith(".lock")][before:]
    assert again == []  # there is nothing to copy


def test_another_machine_continues_from_the_copy(vlm, asked, tmp_path, monkeypatch, caplog):
    whole = kg.extract(vlm, out=tmp_path / "whole", **asked)
    with monkeypatch.context() as patched:
        stop_at(vlm, patched, 4)  # one pass is the self-check's
        with pytest.raises(KeyboardInterrupt):
            kg.extract(vlm, out=tmp_path / "lost", mirror=ADDRESS, **asked)
    assert ".lock" not in copied()
    done = [name for name in Unsteady.store if f"/{COMMITS}/" in name]
    assert 0 < len(done) < 4
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.lock").touch()  # of a command that was killed
    with caplog.at_level(logging.INFO, "keygap"):
        found = kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert f"continues from the copy at {ADDRESS}" in caplog.text
    assert files_of(found.root) == files_of(whole.root) == copied()


def test_a_restored_run_begins_at_the_first_part_that_the_copy_does_not_have_whole(
    vlm, asked, tmp_path, caplog
):
    whole = kg.extract(vlm, out=tmp_path / "whole", mirror=ADDRESS, **asked)
    name = f"/bucket/run/{COMMITS}/part-00002.json"
    Unsteady.store[name].truncate(len(Unsteady.store[name].getvalue()) // 2)  # half a write
    found = kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert files_of(found.root) == files_of(whole.root) == copied()
    assert found.samples["sample_id"].to_list() == whole.samples["sample_id"].to_list()
    assert "repairing" not in caplog.text


def killed_at_the_journal(path, data):
    if path.name == "journal.jsonl":
        raise KeyboardInterrupt
    return write_bytes(path, data)


def test_a_restore_that_was_killed_is_done_again(vlm, asked, tmp_path, monkeypatch):
    whole = kg.extract(vlm, out=tmp_path / "whole", mirror=ADDRESS, **asked)
    with monkeypatch.context() as patched:
        patched.setattr("keygap.store.mirror.write_bytes", killed_at_the_journal)
        with pytest.raises(KeyboardInterrupt):
            kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    left = files_of(tmp_path / "new")
    assert "extraction.yaml" in left
    assert "journal.jsonl" not in left
    read = []
    real = type(vlm).forward

    def forward(self, batch, **keywords):
        read.append(batch)
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)
    found = kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert len(read) <= 2  # those of the self-check; four parts would take four more
    assert files_of(found.root) == files_of(whole.root)


def test_a_copy_that_names_other_files_is_refused(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    name = f"/bucket/run/{COMMITS}/part-00000.json"
    commit = commit_of(Unsteady.store[name].getvalue().decode())
    other = Commit(commit.samples, {**commit.checksums, "../part-00001.parquet": "0" * 64})
    Unsteady.store[name].seek(0)
    Unsteady.store[name].write(line_of(other))
    (tmp_path / "part-00001.parquet").write_text("mine")
    with pytest.raises(
        UserError, match=r"lists '../part-00001.parquet', which is not the file of a"
    ):
        kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert (tmp_path / "part-00001.parquet").read_text() == "mine"
    assert files_of(tmp_path / "new") == {}


def test_a_damaged_object_is_noticed_and_its_part_extracted_again(vlm, asked, tmp_path, caplog):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    name = "/bucket/run/tokens/part-00001.parquet"
    Unsteady.store[name].seek(40)
    Unsteady.store[name].write(b"\0\0\0\0")
    found = kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert "unexpected files: tokens/part-00001.parquet" in caplog.text
    assert files_of(found.root) == files_of(tmp_path / "run") == copied()


def test_a_store_that_fails_every_tenth_write_has_the_same_copy(
    vlm, asked, tmp_path, unsteady, monkeypatch, caplog
):
    monkeypatch.setattr(unsteady, "fails", 10)
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert caplog.text.count("503 slow down): tried again") >= 2
    assert copied() == files_of(tmp_path / "run")


def test_a_store_that_keeps_failing_ends_the_run_which_continues(
    vlm, asked, tmp_path, unsteady, monkeypatch
):
    whole = kg.extract(vlm, out=tmp_path / "whole", **asked)
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **{**asked, "samples": 2})
    Unsteady.store.clear()
    with monkeypatch.context() as patched:
        patched.setattr(unsteady, "fails", 1)
        with pytest.raises(UserError, match=r"cannot be written \(503 slow down\): .* continues"):
            kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    found = kg.extract(vlm, out=tmp_path / "new", mirror=ADDRESS, **asked)
    assert files_of(found.root) == files_of(whole.root) == copied()


def test_what_fails_in_the_middle_leaves_a_folder_that_continues(
    vlm, asked, tmp_path, unsteady, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(objects, "WAITS", ())
        patched.setattr(unsteady, "fails", 12)
        with pytest.raises(UserError, match="503 slow down"):
            kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    parts = list((tmp_path / "run").glob("tokens/part-*"))
    assert parts
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied() == files_of(tmp_path / "run")


def test_what_repeating_does_not_mend_is_not_repeated(vlm, asked, tmp_path, unsteady, monkeypatch):
    monkeypatch.setattr(unsteady, "fails", 1)
    monkeypatch.setattr(unsteady, "error", PermissionError("403 forbidden"))
    with pytest.raises(UserError, match="403 forbidden"):
        kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert len(Unsteady.writes) == 1
    assert not (tmp_path / "run").exists()


def test_another_extraction_is_neither_restored_nor_overwritten(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    before = copied()
    other = {**asked, "layers": [2]}
    with pytest.raises(UserError, match="holds the copy of another extraction"):
        kg.extract(vlm, out=tmp_path / "other", mirror=ADDRESS, **other)
    assert not (tmp_path / "other").exists()
    kg.extract(vlm, out=tmp_path / "other", **other)
    with pytest.raises(UserError, match="holds the copy of another extraction"):
        kg.extract(vlm, out=tmp_path / "other", mirror=ADDRESS, **other)
    assert copied() == before


def test_two_writers_of_one_address(vlm, asked, tmp_path, monkeypatch):
    system = Unsteady()
    monkeypatch.setattr(claim, "HELD", 0.5)
    monkeypatch.setattr(claim, "RENEWED", 0.1)
    system.pipe_file("/bucket/run/.lock", claim_of())
    refused = threading.Event()

    def renew() -> None:
        while not refused.wait(0.05):
            system.pipe_file("/bucket/run/.lock", claim_of())

    renewing = threading.Thread(target=renew)
    renewing.start()
    with pytest.raises(UserError, match=r"is being written by process 7 on elsewhere"):
        kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    refused.set()
    renewing.join()
    assert not (tmp_path / "run").exists()
    system.pipe_file("/bucket/run/.lock", claim_of(time=time.time()))  # and then it was killed
    began = time.monotonic()
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert time.monotonic() - began > 0.4
    assert ".lock" not in copied()


def test_a_run_that_commits_nothing_does_not_bind_the_address(vlm, asked, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(vlm, patched, 1)
        with pytest.raises(KeyboardInterrupt):
            kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **{**asked, "sites": ["q_proj"]})
    assert copied() == {}
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied() == files_of(tmp_path / "run")


def test_what_the_user_has_in_the_folder_is_refused_and_kept(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    (tmp_path / "mine/tokens").mkdir(parents=True)
    (tmp_path / "mine/tokens/part-00000.parquet").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        kg.extract(vlm, out=tmp_path / "mine", mirror=ADDRESS, **asked)
    assert files_of(tmp_path / "mine") == {"tokens/part-00000.parquet": b"mine"}


def test_a_copy_of_a_measured_run_lists_what_it_has(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", **asked)
    before = (tmp_path / "run/checksums.sha256").read_bytes()
    save_results(tmp_path / "run", {"gap.csv": "a,b\n"})
    assert (tmp_path / "run/checksums.sha256").read_bytes() != before
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied()["checksums.sha256"] == before
    assert "gap.csv" not in copied()


def test_an_address_inside_the_folder_is_refused(vlm, asked, tmp_path):
    with pytest.raises(UserError, match=r"is inside .*: name an address outside of it"):
        kg.extract(vlm, out=tmp_path / "run", mirror=f"file://{tmp_path}/run/copy", **asked)


def test_folders_of_a_file_system_are_made_but_no_bucket(tmp_path):
    own = objects.Objects.at(f"file://{tmp_path}/copy/run", "mirror")
    own.write("a/b.txt", b"1")
    assert (tmp_path / "copy/run/a/b.txt").read_bytes() == b"1"
    other = objects.Objects.at("file:///no-such-bucket/run", "mirror")
    with pytest.raises(UserError, match="cannot be written"):
        other.write("a.txt", b"1")


def test_a_writer_whose_address_was_taken_over_says_so(vlm, asked, tmp_path, monkeypatch):
    real = Mirror.push
    theirs = f"/bucket/run/{SENT}/0123456789abcdef/tokens/part-00000.parquet"

    def push(self, number, commit):
        if number == 1:
            self._wait()
            Unsteady().pipe_file("/bucket/run/.lock", claim_of())
            Unsteady().pipe_file(theirs, b"of their workers")
        real(self, number, commit)

    monkeypatch.setattr(Mirror, "push", push)
    with pytest.raises(UserError, match=r"was taken over by another process: see \.lock there"):
        kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert json.loads(copied()[".lock"])["host"] == "elsewhere"  # it is the other's
    assert "part-00002.parquet" not in "".join(Unsteady.store)
    assert theirs in Unsteady.store


def test_an_address_that_cannot_be_tidied_does_not_hide_how_the_run_ended(
    vlm, asked, tmp_path, monkeypatch, caplog
):
    real = Mirror.finish

    def finish(self):
        real(self)
        monkeypatch.setattr(Unsteady, "cat_file", fails)

    def fails(self, path, **options):
        raise OSError("503 slow down")

    monkeypatch.setattr(Mirror, "finish", finish)
    store = kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert not store.manifest["failures"]
    assert f"{SENT} may hold parts that nobody needs" in caplog.text
    assert "(503 slow down)" in caplog.text


def test_an_object_of_the_user_is_no_part_that_a_worker_sent(vlm, asked, tmp_path):
    Unsteady().pipe_file(f"/bucket/run/{SENT}", b"mine")
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied() == {SENT: b"mine", **files_of(tmp_path / "run")}


def test_workers_send_to_a_store_of_which_every_tenth_write_fails(
    vlm, asked, tmp_path, monkeypatch, unsteady, in_turn
):
    monkeypatch.setattr(Work, "of", on_other_nodes(tmp_path / "theirs"))
    monkeypatch.setattr(unsteady, "fails", 10)
    kg.extract(vlm, out=tmp_path / "run", engine=in_turn, mirror=ADDRESS, **asked)
    assert len(unsteady.writes) > 20
    assert copied() == files_of(tmp_path / "run")
    kg.extract(vlm, out=tmp_path / "here", **asked)
    assert copied() == files_of(tmp_path / "here")


def test_a_part_that_was_damaged_here_is_copied_again(vlm, asked, tmp_path):
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    (tmp_path / "run/tokens/part-00001.parquet").unlink()
    kg.extract(vlm, out=tmp_path / "run", mirror=ADDRESS, **asked)
    assert copied() == files_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("runs/copy", "an address such as s3://bucket/run is needed"),
        ("nowhere://bucket/run", "Protocol not known: nowhere"),
        ("s3://bucket/run", "Install s3fs to access S3"),
    ],
)
def test_an_address_that_cannot_be_reached_is_refused_before_anything_is_done(
    vlm, asked, tmp_path, address, reason
):
    with pytest.raises(UserError, match=reason):
        kg.extract(vlm, out=tmp_path / "run", mirror=address, **asked)
    assert not (tmp_path / "run").exists()
