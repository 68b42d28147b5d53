"""A run folder is valid at every moment, has one writer, and continues only itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from keygap.errors import UserError
from keygap.store import Store, StoreWriter, write_part
from made import files_of

from .made import IDENTITY, part

TEMPORARY = "0123456789abcdef.tmp"


def written(root, numbers=(0, 1), finish: bool = True) -> None:
    """Parts of two samples each, by one writer."""
    with StoreWriter(root, IDENTITY) as writer:
        for number in numbers:
            tables = part(range(2 * number, 2 * number + 2))
            written = write_part(root, number, tables)
            writer.commit(number, tables.samples, written)
        if finish:
            writer.write_manifest({"n_samples": len(writer.done)})


def test_the_files_of_a_run(tmp_path):
    written(tmp_path / "run")
    assert set(files_of(tmp_path / "run")) == {
        "extraction.yaml",
        "manifest.json",
        "samples.parquet",
        "checksums.sha256",
        *(
            f"{folder}/part-0000{number}.parquet"
            for folder in (
                "tokens",
                "thumbnails",
                "vectors/site=k_proj/layer=0",
                "vectors/site=k_proj/layer=3",
                "vectors/site=hidden/layer=3",
            )
            for number in (0, 1)
        ),
    }
    assert yaml.safe_load((tmp_path / "run/extraction.yaml").read_text()) == IDENTITY
    assert json.loads((tmp_path / "run/manifest.json").read_text()) == {"n_samples": 4}


def test_a_part_is_done_once_it_is_committed(tmp_path):
    tables = part(range(2), failed=(1,))
    with StoreWriter(tmp_path / "run", IDENTITY) as writer:
        written = write_part(tmp_path / "run", 0, tables)
        assert writer.done == set()
        writer.commit(0, tables.samples, written)
        assert writer.done == {"s0", "s1"}
        assert writer.failures == {"s1": "broken"}
    with StoreWriter(tmp_path / "run", IDENTITY) as again:
        assert again.done == {"s0", "s1"}
        assert again.failures == {"s1": "broken"}


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path):
    written(tmp_path / "one")
    written(tmp_path / "two", [0], finish=False)
    written(tmp_path / "two", [1], finish=False)
    with StoreWriter(tmp_path / "two", IDENTITY) as writer:
        writer.write_manifest({"n_samples": 4})
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_nothing_stays_of_a_run_that_committed_nothing(tmp_path):
    with StoreWriter(tmp_path / "a/run", IDENTITY):
        write_part(tmp_path / "a/run", 0, part(range(2)))
        assert (tmp_path / "a/run/tokens/part-00000.parquet").is_file()
    assert list(tmp_path.iterdir()) == []


def test_committed_parts_stay_when_a_later_one_fails(tmp_path):
    written(tmp_path / "run", [0], finish=False)
    before = files_of(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "run", IDENTITY):
        raise ZeroDivisionError
    assert files_of(tmp_path / "run") == before
    with pytest.raises(UserError, match="did not finish: repeat its command, it continues"):
        _ = Store(tmp_path / "run").manifest


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "its seed is 0, not 1; name another folder with --out"),
        ({"layers": [0]}, r"its layers is \[0, 3\], not \[0\]"),
        ({"language": "zh"}, "its language is None, not 'zh'"),
        ({"interventions": [{"name": "mask"}]}, r"interventions is \[\], not \[{'name': 'mask'}\]"),
    ],
)
def test_another_extraction_is_refused(tmp_path, change, line):
    written(tmp_path / "run")
    before = files_of(tmp_path / "run")
    with pytest.raises(UserError, match=rf"run holds another extraction: .*{line}"):
        StoreWriter(tmp_path / "run", {**IDENTITY, **change}).__enter__()
    assert files_of(tmp_path / "run") == before


def test_what_is_no_run_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for path, line in (
        (tmp_path, "is not empty and holds no run"),
        (tmp_path / "thesis.txt", "is a file: name a folder for the run"),
        (tmp_path / "thesis.txt/run", r"/thesis.txt is a file: name another folder"),
    ):
        with pytest.raises(UserError, match=line):
            StoreWriter(path, IDENTITY).__enter__()
    assert files_of(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\x00", None])
def test_a_damaged_identity_is_one_line_and_is_written_again_by_its_extraction(tmp_path, text):
    root = tmp_path / "run"
    written(root)
    before = files_of(root)
    if text is None:
        (root / "extraction.yaml").unlink()
    else:
        (root / "extraction.yaml").write_text(text)
    with pytest.raises(
        UserError, match=r"extraction.yaml is (missing|damaged).*: repeat the keygap"
    ):
        Store(root)
    with pytest.raises(UserError, match=r"extraction.yaml is (missing|damaged).*: name another"):
        StoreWriter(root, {**IDENTITY, "seed": 1}).__enter__()
    with StoreWriter(root, IDENTITY) as writer:
        assert (len(writer.done), writer.damaged) == (4, set())
        writer.write_manifest({"n_samples": 4})
    assert files_of(root) == before


def test_a_second_writer_is_refused(holder, tmp_path):
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on"):
        StoreWriter(tmp_path / "run", IDENTITY).__enter__()
    assert files_of(tmp_path) == before


def test_a_writer_removes_its_own_temporary_files_and_no_others(tmp_path):
    root = tmp_path / "run"
    written(root)
    before = files_of(root)
    own = [
        f".samples.parquet.{TEMPORARY}",
        f".extraction.yaml.{TEMPORARY}",
        f".manifest.json.{TEMPORARY}",
        f"tokens/.part-00002.parquet.{TEMPORARY}",
        f"vectors/site=k_proj/layer=0/.part-00002.parquet.{TEMPORARY}",
    ]
    others = [
        f".gap.csv.{TEMPORARY}",  # keygap measure may be writing it now
        ".editor.tmp",
        f"tokens/.mine.{TEMPORARY}",
        f"figures/.part-00000.parquet.{TEMPORARY}",
    ]
    (root / "figures").mkdir()
    for name in (*own, *others):
        (root / name).write_text("half")
    with StoreWriter(root, IDENTITY):
        pass
    assert files_of(root) == before | dict.fromkeys(others, b"half")


def test_a_run_killed_before_its_identity_was_whole_is_begun_again(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / f".extraction.yaml.{TEMPORARY}").write_text("mod")
    (root / ".lock").write_text("process 1 on nowhere")
    written(root)
    written(tmp_path / "other")
    assert files_of(root) == files_of(tmp_path / "other")


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from store.made import IDENTITY, part
from keygap.store import StoreWriter, write_part
root = Path({root!r})
with StoreWriter(root, IDENTITY) as writer:
    for number in range(2):
        tables = part(range(2 * number, 2 * number + 2))
        written = write_part(root, number, tables)
        if number == {number}:
            os.kill(os.getpid(), 9)
        writer.commit(number, tables.samples, written)
"""


@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_run_killed_between_a_part_and_its_commit_ends_the_same(tmp_path, number):
    root = tmp_path / "run"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), root=str(root), number=number)
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (root / f"tokens/part-0000{number}.parquet").is_file()
    assert (root / "journal.jsonl").is_file() == (number == 1)
    written(root, range(number, 2))
    written(tmp_path / "whole")
    assert files_of(root) == files_of(tmp_path / "whole")


def test_a_run_of_keygap_0_1_is_read_and_not_continued(tmp_path):
    """Its identity was in experiment.yaml and does not say all that a run depends on today."""
    root = tmp_path / "run"
    written(root, [0], finish=False)
    (root / "extraction.yaml").unlink()
    (root / "checksums.sha256").unlink()
    asked = {key: value for key, value in IDENTITY.items() if key != "interventions"}
    (root / "experiment.yaml").write_text(yaml.safe_dump(asked))
    assert Store(root).identity == asked
    before = files_of(root)
    with pytest.raises(UserError, match=r"another extraction: its interventions is None, not \[\]"):
        written(root, [1])
    assert files_of(root) == before


def test_a_users_own_experiment_file_beside_the_run_is_left_alone(tmp_path):
    written(tmp_path / "run", [0])
    (tmp_path / "run/experiment.yaml").write_text("name: mine\n")
    written(tmp_path / "run", [1])
    assert (tmp_path / "run/experiment.yaml").read_text() == "name: mine\n"
    assert Store(tmp_path / "run").identity == IDENTITY
