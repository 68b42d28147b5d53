"""The connection to Ray begins and ends without a trace, and what prevents it is one line."""

from __future__ import annotations

import logging
import signal
import socket
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from keygap.errors import UserError
from keygap.workers import REGISTRY, workers_of
from keygap.workers.cluster import _short_folder, imported, room

from .on_ray import Task


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:{port}", r"the Ray cluster at 127.0.0.1:\d+ cannot be reached \(.*refused\)"),
        ("ray://127.0.0.1:{port}", r"the Ray Client cannot be used: run keygap on a node"),
        ("nonsense", r"the Ray cluster at nonsense cannot be reached \(.*nonsense\)"),
        ("auto", r"the Ray cluster at auto cannot be reached \(Could not find any running Ray"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(monkeypatch, address, line):
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=unused_port()))
    before = signal.getsignal(signal.SIGTERM)
    start = time.monotonic()
    with pytest.raises(UserError, match=line) as error, workers_of("ray"):
        pass
    assert "\n" not in str(error.value)
    assert "RAY_ADDRESS" in str(error.value)
    assert time.monotonic() - start < 20
    assert signal.getsignal(signal.SIGTERM) == before
    assert not imported().is_initialized()


def test_a_long_path_for_temporary_files_is_not_used(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/of/a/job/with/a/long/name/12345678")
    assert _short_folder() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/12345678")
    assert _short_folder() == "/scratch/12345678"


def pretend(monkeypatch, nodes: list[tuple[int, int]], free: list[int]) -> list[int]:
    """A cluster of nodes with cores and GPUs; what is left of the answers to how many are free."""
    listed = [
        {"Alive": True, "Resources": {"CPU": float(cpu), **({"GPU": float(gpu)} if gpu else {})}}
        for cpu, gpu in nodes
    ]
    listed.append({"Alive": False, "Resources": {"CPU": 1.0, "GPU": 99.0}})

    def available() -> dict[str, float]:
        gpus = free.pop(0) if len(free) > 1 else free[0]
        return {"GPU": float(gpus)} if gpus else {}  # Ray leaves out what is used up

    ray = SimpleNamespace(
        nodes=lambda: listed,
        available_resources=available,
        cluster_resources=lambda: {"GPU": float(sum(gpu for _, gpu in nodes))},
    )
    monkeypatch.setattr("keygap.workers.cluster.imported", lambda: ray)
    return free


@pytest.mark.parametrize(
    ("nodes", "reserved", "workers", "gpus", "expected"),
    [
        ([(2, 0)], 0, 2, 0, (2, 1)),  # two cores: one each
        ([(2, 0)], 0, 4, 0, (4, 1)),  # more than there are cores
        ([(64, 0), (64, 0)], 0, None, 0, (2, 64)),  # one for each node
        ([(64, 0), (64, 0)], 0, 6, 0, (6, 21)),
        ([(64, 8)], 0, None, 1, (8, 8)),  # one for each GPU
        ([(64, 8), (32, 8), (16, 0)], 0, None, 4, (4, 16)),  # the smaller node decides
        ([(8, 1)] * 9, 1, None, 1, (8, 8)),  # one GPU is the caller's own
        ([(64, 8)], 0, 3, 2, (3, 16)),
    ],
)
def test_how_workers_share_a_cluster(monkeypatch, nodes, reserved, workers, gpus, expected):
    """Nodes are given as cores and GPUs, what is expected as workers and cores of each."""
    monkeypatch.setattr("keygap.workers.cluster.FREED_IN", 0.0)
    pretend(monkeypatch, nodes, [sum(gpu for _, gpu in nodes) - reserved])
    found = room(workers, gpus)
    assert (found.workers, found.options["num_cpus"]) == expected
    assert found.options["num_gpus"] == gpus


def test_gpus_of_workers_that_have_just_ended_are_waited_for(monkeypatch, caplog):
    left = pretend(monkeypatch, [(64, 8)], [0, 0, 5, 8])
    with caplog.at_level(logging.INFO, "keygap"):
        assert room(None, 1).workers == 8
    assert left == [8]
    assert caplog.text == ""


def test_gpus_that_stay_reserved_are_not_waited_for_long(monkeypatch, caplog):
    monkeypatch.setattr("keygap.workers.cluster.FREED_IN", 0.2)
    pretend(monkeypatch, [(64, 8), (64, 0)], [0, 6])
    with caplog.at_level(logging.INFO, "keygap"):
        assert room(None, 4).workers == 1
    assert "2 of 8 GPUs are reserved" in caplog.text


def test_a_number_of_workers_that_is_given_waits_for_no_gpu(monkeypatch, caplog):
    left = pretend(monkeypatch, [(64, 8)], [0, 8])
    with caplog.at_level(logging.INFO, "keygap"):
        assert room(8, 1).workers == 8
    assert left == [0, 8]
    assert caplog.text == ""


def test_it_is_said_that_workers_have_no_room(monkeypatch, caplog):
    pretend(monkeypatch, [(64, 8)], [8])
    with caplog.at_level(logging.INFO, "keygap"):
        assert room(16, 1).workers == 16
    assert "there are GPUs for 8 workers and not for 16" in caplog.text


def test_numbers_of_the_engine_local_are_refused():
    with pytest.raises(UserError, match="workers is 2, and the engine is local"):
        workers_of("local", 2)
    with pytest.raises(UserError, match="gpus_per_worker is 1, and the engine is local"):
        workers_of("local", None, 1)


@pytest.mark.parametrize(("workers", "gpus"), [(0, None), (None, -1), (1.5, None)])
def test_numbers_that_mean_nothing_are_refused(workers, gpus):
    with pytest.raises(UserError, match="is needed"):
        workers_of("ray", workers, gpus)


def test_an_unknown_engine_is_one_line():
    with pytest.raises(UserError, match="unknown engine 'rey'; did you mean 'ray'"):
        workers_of("rey")
    assert [name for name, what in REGISTRY.described() if what] == ["local", "ray"]


def test_the_local_engine_does_items_when_they_are_asked_for(tmp_path):
    with workers_of("local") as workers:
        results = workers.map(Task(tmp_path).begin, [2, 3], "squares")
        assert not list(Path(tmp_path).iterdir())
        assert next(results) == 4
        assert list(results) == [9]
