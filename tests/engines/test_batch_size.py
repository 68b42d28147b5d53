"""The size of batches grows while memory is left, and stays as it is where it was given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import keygap as kg
from keygap.engines import ahead, lanes
from keygap.engines.local import LocalEngine
from keygap.engines.memory import peak_share
from keygap.engines.plan import Plan, largest_batch
from keygap.models.load import wrap
from made import bench_of, files_of, made_sample
from models.zoo import BY_FAMILY

COUNT = 160


@pytest.fixture(scope="module")
def tiny():
    return wrap(*BY_FAMILY["llava"].build(), name="tiny")


@pytest.fixture(scope="module")
def plan(tiny):
    """Parts of 64, 64 and 32 samples."""
    chosen = bench_of([made_sample(f"s{n:03}", f"is it {n:03}?") for n in range(COUNT)]).choose(
        None
    )
    return Plan(tiny, chosen, ("k_proj",), (0,), batch_size=8, part_size=64, largest_batch=32)


@pytest.fixture
def gpu(tiny, monkeypatch):
    """A GPU that has room for so many samples, and the size of every batch that was tried."""
    monkeypatch.setattr(ahead, "THREADS", 1)
    made = SimpleNamespace(reported=1000, room=1000, tried=[], peak=0)

    real = type(tiny).forward

    def forward(self, batch, **keywords):
        made.tried.append(len(batch.labels))
        made.peak = max(made.peak, made.tried[-1])
        if made.tried[-1] > made.room:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch, **keywords)

    def share(model):
        peak, made.peak = made.peak, 0
        return peak / made.reported

    monkeypatch.setattr(type(tiny), "forward", forward)
    monkeypatch.setattr(lanes, "MOST", 1)  # a GPU has one
    monkeypatch.setattr(ahead, "peak_share", share)
    return made


def names_of(plan: Plan, tmp_path) -> list[str]:
    parts = LocalEngine().run(plan, range(len(plan)), tmp_path)
    rows = [row for part in parts for row in part.samples.to_pylist()]
    assert not any(row["failure"] for row in rows)
    return [row["sample_id"] for row in rows]


@pytest.mark.parametrize(
    ("room", "sizes"),
    [
        # one batch is made while another is computed, so a size is that of two batches before
        (1000, [8, 8, 16, 32, 32, 32, 32]),
        (40, [8, 8, 16, 32, 32, 32, 32]),  # 32 of 40 are 80 %
        (39, [8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 16]),
        (20, [8, 8, *[16] * 3, *[16] * 4, *[16] * 2]),
        (19, [8] * 20),
    ],
)
def test_a_batch_that_leaves_room_doubles_the_next_ones(plan, gpu, tmp_path, room, sizes):
    gpu.reported = gpu.room = room
    assert names_of(plan, tmp_path) == [entry.id for entry in plan.samples.entries]
    assert gpu.tried == sizes


def test_memory_that_runs_out_in_the_middle_ends_the_growth(plan, gpu, tmp_path):
    gpu.room = 20  # what is reported promises more
    assert names_of(plan, tmp_path) == [entry.id for entry in plan.samples.entries]
    assert gpu.tried == [8, 8, 16, 32, 16, 16, 16, 16, 16, 16, 16, 16]


def test_a_share_is_that_of_the_largest_samples(plan, gpu):
    """Short prompts after long ones say nothing about the long ones of the next part."""
    limit = plan.limit()
    limit.fitted(8, 0.6)
    limit.fitted(8, 0.01)
    assert limit.samples == 8
    limit = plan.limit()
    limit.fitted(8, 0.4)
    assert limit.samples == 16
    assert limit.grows
    limit.fitted(16, 0.1)
    assert limit.samples == 16


def test_a_number_stays_as_it_is_and_memory_is_not_looked_at(tiny, gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "peak_share", None)
    bench = bench_of([made_sample(f"s{n:02}", f"is it {n:02}?") for n in range(20)])
    kg.extract(tiny, bench, tmp_path / "warm", layers=[0], batch_size=6)  # checks batches, too
    gpu.tried.clear()
    store = kg.extract(tiny, bench, tmp_path / "run", layers=[0], batch_size=6)
    assert gpu.tried[-4:] == [6, 6, 6, 2]
    assert store.manifest["largest_batch"] == store.manifest["batch_size"] == 6


def test_the_size_is_found_on_a_gpu_alone():
    def on(device: str) -> Any:
        return SimpleNamespace(device=torch.device(device))

    assert largest_batch(on("cuda:1"), "auto") == 32
    assert largest_batch(on("cpu"), "auto") == largest_batch(on("mps"), "auto") == 0
    assert largest_batch(on("cuda"), 8) == largest_batch(on("cuda"), 64) == 0


def test_samples_that_are_read_one_by_one_stay_alone(plan):
    alone = Plan(plan.vlm, plan.samples, ("k_proj",), (0,), 8, 64, alone=True, largest_batch=32)
    assert (alone.limit().samples, alone.limit().grows) == (1, False)


def test_on_a_cpu_the_default_is_a_run_of_batches_of_eight(tiny, tmp_path):
    bench = bench_of([made_sample(f"s{n:02}", f"is it {n:02}?") for n in range(20)])
    one = kg.extract(tiny, bench, tmp_path / "one", layers=[0])
    other = kg.extract(tiny, bench, tmp_path / "other", layers=[0], batch_size=8)
    assert files_of(one.root) == files_of(other.root)
    assert one.identity["batch_size"] == 8
    assert kg.extract(tiny, bench, other.root, layers=[0]).identity == other.identity
    assert np.isfinite(one.vectors("k_proj", 0).array).all()


def test_the_share_is_that_of_the_fullest_gpu(monkeypatch):
    # bytes: the device has 40 left, PyTorch holds 30 of which 20 are in use
    known = {"cuda:0": (40, 30, 20, 45), "cuda:1": (40, 30, 20, 30)}
    reset = []
    for name, place in {
        "memory_reserved": 1,
        "memory_allocated": 2,
        "max_memory_allocated": 3,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, place=place: known[str(device)][place])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (known[str(device)][0], 80))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: reset.append(device))

    def model(*devices: str) -> Any:
        found = [SimpleNamespace(device=torch.device(name)) for name in devices]
        return SimpleNamespace(parameters=lambda: found)

    assert peak_share(model("cuda:0", "cuda:0", "cuda:1", "cpu")) == (45 - 20) / (40 + 30 - 20)
    assert peak_share(model("cuda:1")) == (30 - 20) / 50
    assert len(reset) == 3
    assert peak_share(model("cpu")) == 1
