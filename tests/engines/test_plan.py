"""A plan divides the samples in the same way every time, and knows what is missing."""

from __future__ import annotations

import dataclasses

import pytest

from keygap.engines import plan as planning
from keygap.engines.plan import Plan, part_size
from made import bench_of, made_sample


@pytest.fixture
def chosen():
    return bench_of([made_sample(f"s{n:02}", f"is it {n}?") for n in range(23)]).choose(None)


@pytest.fixture
def plan(vlm, chosen) -> Plan:
    return Plan(vlm, chosen, ("k_proj",), (0,), batch_size=4, part_size=8)


def test_the_parts_are_all_samples_in_their_order(plan, chosen):
    assert len(plan) == 3
    parts = [plan.part(number) for number in range(3)]
    assert [len(part) for part in parts] == [8, 8, 7]
    assert [e.id for part in parts for e in part.entries] == [e.id for e in chosen.entries]
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.part_size = 4


def test_a_part_is_missing_until_every_sample_of_it_is_done(plan, chosen):
    names = [entry.id for entry in chosen.entries]
    assert plan.missing([]) == [0, 1, 2]
    assert plan.missing(names) == []
    assert plan.missing(names[:8]) == [1, 2]
    assert plan.missing(names[:7] + names[8:]) == [0]
    assert plan.missing(names[8:22]) == [0, 2]
    assert plan.missing(names, {1}) == [1]
    assert plan.missing(names[:8], {0, 7}) == [0, 1, 2]  # there is no part 7


def test_a_part_holds_whole_batches_within_its_limits(vlm, monkeypatch):
    heads, head_dim, tokens = 3, 64, 64 + planning.TEXT_TOKENS
    assert part_size(vlm, ["k_proj"], [0], 8, 64) == 64
    assert part_size(vlm, ["k_proj"], [0], 7, 64) == 63
    assert part_size(vlm, ["k_proj"], [0], 100, 64) == 100

    of_a_batch = 4 * heads * head_dim * tokens * 8
    for batches, limit in ((1, of_a_batch - 1), (1, of_a_batch), (3, 3.5 * of_a_batch)):
        monkeypatch.setattr(planning, "PART_BYTES", int(limit))
        assert part_size(vlm, ["k_proj"], [0], 8, 64) == 8 * batches
    monkeypatch.setattr(planning, "PART_BYTES", 8 * of_a_batch)
    assert part_size(vlm, ["k_proj"], [0, 1], 8, 64) == 8 * 4  # two layers take twice as much
    assert part_size(vlm, ["query"], [0], 8, 64) == 8 * 2  # 9 heads of queries, 3 of keys
    assert part_size(vlm, ["k_proj"], [0], 8) < 8 * 8  # all image tokens
