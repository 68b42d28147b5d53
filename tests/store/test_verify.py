"""Every part of a run is compared with its checksum, several files at once."""

from __future__ import annotations

import threading

import pytest

from keygap.errors import UserError
from keygap.store import Store, StoreWriter, reading, recovery

from .made import IDENTITY
from .test_writer import written


@pytest.fixture
def together(monkeypatch):
    """Let a file be compared only while another one is, and say which were."""
    monkeypatch.setattr(reading, "THREADS", 2)
    compare, pair, names = reading.verify, threading.Barrier(2, timeout=60), []

    def verify(path, *rest):
        names.append(path.name)
        pair.wait()
        compare(path, *rest)

    for module in (reading, recovery):
        monkeypatch.setattr(module, "verify", verify)
    return names


def test_files_are_compared_side_by_side(tmp_path, together):
    written(tmp_path / "run", range(2))
    Store(tmp_path / "run").verify()
    assert len(together) == 2 * 5
    written(tmp_path / "other", range(3))
    together.clear()
    with StoreWriter(tmp_path / "other", IDENTITY):
        pass
    assert len(together) == 3 * 5 + 3  # parts, samples, identity and manifest


def test_few_files_wait_for_a_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "AT_ONCE", 4)
    written(tmp_path, range(3))
    Store(tmp_path).verify()
    (tmp_path / "tokens/part-00002.parquet").write_bytes(b"")
    (tmp_path / "vectors/site=hidden/layer=3/part-00001.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"tokens/part-00002.parquet is damaged or .*it is empty"):
        Store(tmp_path).verify()
    with StoreWriter(tmp_path, IDENTITY) as writer:
        assert writer.damaged == {1, 2}
