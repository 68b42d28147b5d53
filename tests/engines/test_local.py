"""The local engine hands on each part once its files are on disk, and commits none."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pyarrow.parquet as pq
import pytest

from keygap.capture import keeping
from keygap.engines.local import LocalEngine
from keygap.engines.plan import Plan
from made import bench_of, files_of, read_part


@pytest.fixture
def plan(vlm, good_samples) -> Plan:
    return Plan(vlm, bench_of(good_samples).choose(None), ("k_proj",), (0, 1), 2, 2)


def test_parts_are_on_disk_when_they_are_handed_on(plan, tmp_path):
    seen = []
    for written in LocalEngine().run(plan, [1, 3], tmp_path):
        seen.append(written.number)
        expected = read_part(plan, written.number).tables()
        assert written.samples.equals(expected.samples)
        name = f"part-0000{written.number}.parquet"
        assert pq.read_table(tmp_path / "tokens" / name).equals(expected.tokens)
        for (site, layer), table in expected.vectors.items():
            folder = tmp_path / f"vectors/site={site}/layer={layer}"
            assert pq.read_table(folder / name, partitioning=None).equals(table)
        files = files_of(tmp_path)
        assert len(files) == 4 * len(seen)  # its thumbnails, and nothing else
        assert written.checksums == {
            path: hashlib.sha256(data).hexdigest() for path, data in files.items() if name in path
        }
    assert seen == [1, 3]


def test_nothing_is_done_ahead_of_the_driver(plan, tmp_path):
    parts: Any = LocalEngine().run(plan, [0, 1], tmp_path)
    assert files_of(tmp_path) == {}
    next(parts)
    parts.close()
    assert {name.rsplit("/")[-1] for name in files_of(tmp_path)} == {"part-00000.parquet"}


def test_vectors_are_arranged_where_the_part_is_written(plan, tmp_path, monkeypatch):
    """The thread that runs the model would keep a GPU waiting with it."""
    threads = []
    real = keeping._Copy.arranged

    def arranged(self):
        threads.append(threading.current_thread().name)
        return real(self)

    monkeypatch.setattr(keeping._Copy, "arranged", arranged)
    list(LocalEngine().run(plan, [0, 1], tmp_path))
    assert len(threads) == 2 * 2  # once for each part and layer
    assert all(name.startswith("keygap-write") for name in threads)
