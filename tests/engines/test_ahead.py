"""Batches are made ahead in the order of the run, and become smaller when memory runs out."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from transformers import BatchFeature

import keygap as kg
from keygap.engines import ahead
from keygap.engines.ahead import BatchLimit, prepared, run_within_memory
from keygap.engines.part import read_parts
from keygap.engines.plan import Plan
from made import bench_of, made_sample, read_part


@pytest.fixture
def chosen():
    return bench_of([made_sample(f"s{n}", f"is it {n}?") for n in range(7)]).choose(None)


def in_order(bench):
    """All samples, as they are given."""
    chosen = bench.choose(None)
    return replace(chosen, places=tuple(range(len(chosen))))


def ids(batches) -> list[list[str]]:
    return [[sample.id for sample in each.samples] for each in batches]


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_the_order_of_the_run(vlm, chosen, monkeypatch, threads):
    monkeypatch.setattr(ahead, "THREADS", threads)
    names = [entry.id for entry in chosen.entries]
    found = list(prepared(vlm, [chosen[:5], chosen[5:]], BatchLimit(3)))
    assert ids(found) == [names[:3], names[3:5], names[5:]]
    assert [each.last for each in found] == [False, True, True]
    for each in found:
        expected = vlm.prompter(each.samples)
        assert torch.equal(each.batch.inputs["input_ids"], expected.inputs["input_ids"])


def test_images_are_opened_by_one_thread_in_order_and_only_of_the_next_part(vlm, monkeypatch):
    opening, opened = threading.Lock(), []
    bench = bench_of([made_sample(f"s{n:02}") for n in range(24)])
    real = bench.sample

    def sample(number):
        assert opening.acquire(blocking=False)
        opened.append(number)
        opening.release()
        return real(number)

    monkeypatch.setitem(vars(bench), "sample", sample)
    batches = prepared(vlm, in_order(bench).batches(4), BatchLimit(2))
    for _ in range(3):
        next(batches)
    batches.close()
    ahead_of_model = 2 * (ahead.THREADS + 1)
    assert opened == list(range(len(opened)))
    assert 6 <= len(opened) <= 6 + ahead_of_model + 2 * 4


def test_a_part_without_a_good_sample_does_not_take_the_batches_of_the_next(vlm):
    samples = [made_sample(f"s{n}") for n in range(4)]
    samples[:2] = [replace(sample, images=()) for sample in samples[:2]]
    batches = list(prepared(vlm, in_order(bench_of(samples)).batches(2), BatchLimit(2)))
    assert ids(batches) == [[], ["s2", "s3"]]
    assert [list(each.bad) for each in batches] == [["s0", "s1"], []]
    assert [each.last for each in batches] == [True, True]
    plan = Plan(vlm, in_order(bench_of(samples)), ("k_proj",), (0,), batch_size=2, part_size=2)
    parts = [part.tables() for part in read_parts(plan, [0, 1])]
    assert [part.samples["sample_id"].to_pylist() for part in parts] == [["s0", "s1"], ["s2", "s3"]]
    assert [part.tokens is None for part in parts] == [True, False]


def out_of_memory_above(vlm, monkeypatch, most):
    """Let a pass over more than so many prompts run out of memory; the sizes that were tried."""
    tried: list[int] = []
    real = type(vlm).forward

    def forward(self, batch, **keywords):
        tried.append(len(batch.labels))
        if len(batch.labels) > most:
            raise torch.OutOfMemoryError("out of memory: 2 GiB\nsecond line")
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)
    return tried


def test_a_batch_that_does_not_fit_is_divided_and_later_ones_are_smaller(vlm, chosen, monkeypatch):
    plan = Plan(vlm, chosen, ("k_proj",), (0,), batch_size=5, part_size=7)
    expected = read_part(plan, 0).tables()
    limit = plan.limit()
    tried = out_of_memory_above(vlm, monkeypatch, 2)
    found = read_part(plan, 0, limit).tables()
    assert limit.samples == 2
    assert tried[0] == 5
    assert sum(tried) - sum(size for size in tried if size > 2) == 7
    assert found.samples.equals(expected.samples)
    assert found.tokens.equals(expected.tokens)
    one, other = (part.vectors["k_proj", 0].drop_columns("vector") for part in (found, expected))
    assert one.drop_columns("attention").equals(other.drop_columns("attention"))


def test_a_sample_that_does_not_fit_alone_is_a_bad_one(vlm, chosen, monkeypatch):
    out_of_memory_above(vlm, monkeypatch, 0)
    (ready,) = prepared(vlm, [chosen[:2]], BatchLimit(2))
    limit = BatchLimit(2)
    results, bad = run_within_memory(vlm, ready, limit, lambda ready: vlm.forward(ready.batch))
    assert results == []
    reason = "it does not fit into memory alone: out of memory: 2 GiB"
    assert bad == dict.fromkeys([sample.id for sample in ready.samples], reason)


def test_a_sample_that_fits_the_second_time_is_read(vlm, chosen):
    (ready,) = prepared(vlm, [chosen[:1]], BatchLimit(1))
    calls: list[int] = []

    def run(ready):
        calls.append(len(ready.samples))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory: another process has it")
        return ready.samples[0].id

    assert run_within_memory(vlm, ready, BatchLimit(1), run) == ([ready.samples[0].id], {})
    assert calls == [1, 1]


def test_another_error_is_not_taken_for_it(vlm, chosen, monkeypatch):
    def forward(self, batch, **keywords):
        raise RuntimeError("something else")

    monkeypatch.setattr(type(vlm), "forward", forward)
    with pytest.raises(RuntimeError, match="something else"):
        read_part(Plan(vlm, chosen, ("k_proj",), (0,), 2, 7), 0)


def test_a_run_of_one_too_large_sample_says_so(vlm, tmp_path, monkeypatch):
    bench = bench_of(
        [made_sample(f"s{n}", "is it " + "very " * (200 * (n == 3))) for n in range(4)]
    )

    real = type(vlm).forward

    def forward(self, batch, **keywords):
        if any((labels.token == "Ġvery").any() for labels in batch.labels):
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)
    store = kg.extract(vlm, bench, tmp_path / "run", layers=[0], samples=None, max_bad=1)
    failures = store.samples.dropna(subset="failure").set_index("sample_id")["failure"]
    assert failures.to_dict() == {"s3": "it does not fit into memory alone: out of memory"}


def test_inputs_of_a_gpu_are_pinned_beside_the_passes(vlm, chosen, monkeypatch):
    """A copy of other memory would be waited for. No GPU is needed here: it is imitated."""
    pinned = []

    def pin(tensor):
        pinned.append(threading.current_thread().name)
        return tensor.clone()

    expected = [vlm.prompter([chosen.sample(number)]).inputs for number in range(2)]
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    assert len(list(prepared(vlm, [chosen[:1]], BatchLimit(1)))) == 1
    assert pinned == []
    monkeypatch.setattr(type(vlm), "device", torch.device("cuda"))
    found = [ready.batch.inputs for ready in prepared(vlm, [chosen[:2]], BatchLimit(1))]
    assert len(pinned) == sum(map(len, found))
    assert all(name.startswith("keygap-prepare") for name in pinned)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_inputs_are_cast_where_the_model_is(vlm, chosen, monkeypatch):
    """On a GPU, after a copy that is not waited for."""
    asked = []

    def to(self, *where, **how):
        asked.append((where, how))
        return self

    batch = vlm.prompter([chosen.sample(0)])
    monkeypatch.setattr(BatchFeature, "to", to)
    vlm.inputs_of(batch)
    gpu = torch.device("cuda")
    cast = {"dtype": vlm.model.dtype}
    assert asked == [((vlm.device,), cast)]
    monkeypatch.setattr(type(vlm), "device", gpu)
    vlm.inputs_of(batch)
    assert asked[1:] == [((gpu,), {"non_blocking": True}), ((gpu,), cast)]
