"""The tables of a part depend on the plan and nothing else; nothing is written."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from keygap.engines.part import read_parts
from keygap.engines.plan import Plan
from made import bench_of, made_sample, read_part


@pytest.fixture(scope="module")
def plan(vlm) -> Plan:
    """Seven samples in two parts; the second and fifth are bad."""
    samples = [made_sample(f"s{n}", "is it red? " * (1 + n % 3)) for n in range(7)]
    samples[1] = replace(samples[1], images=())
    samples[4] = replace(samples[4], prompt=(), question="")
    chosen = replace(bench_of(samples).choose(None), places=tuple(range(7)))
    return Plan(vlm, chosen, ("k_proj", "hidden"), (0, 29), batch_size=2, part_size=4)


@pytest.fixture(scope="module")
def parts(plan):
    return [read_part(plan, number).tables() for number in range(len(plan))]


def equal(one, other) -> bool:
    return (
        one.samples.equals(other.samples)
        and one.tokens.equals(other.tokens)
        and one.vectors.keys() == other.vectors.keys()
        and all(table.equals(other.vectors[key]) for key, table in one.vectors.items())
    )


def test_every_sample_has_a_row_and_bad_ones_their_reason(parts):
    rows = [row for part in parts for row in part.samples.to_pylist()]
    assert [row["sample_id"] for row in rows] == [f"s{n}" for n in range(7)]
    failures = {row["sample_id"]: row["failure"] for row in rows if row["failure"]}
    assert failures == {"s1": "the sample has no image", "s4": "the sample has no text"}
    assert [row["n_image_tokens"] for row in rows if not row["failure"]] == [16] * 5


def test_tokens_and_vectors_have_the_same_rows_without_padding(plan, parts):
    for part, names in zip(parts, (["s0", "s2", "s3"], ["s5", "s6"]), strict=True):
        lengths = {
            row["sample_id"]: row["n_tokens"]
            for row in part.samples.to_pylist()
            if not row["failure"]
        }
        assert list(lengths) == names
        assert set(part.vectors) == {(s, layer) for s in plan.sites for layer in plan.layers}
        expected = [(name, p) for name in names for p in range(lengths[name])]
        for table in (part.tokens, *part.vectors.values()):
            found = zip(table["sample_id"].to_pylist(), table["position"].to_pylist(), strict=True)
            assert list(found) == expected


def test_vectors_are_those_of_the_sample_alone(plan, parts):
    sample = plan.samples.sample(2)
    alone = replace(plan, samples=bench_of([sample]).choose(None), part_size=1)
    (single,) = [read_part(alone, 0).tables()]
    for key, table in single.vectors.items():
        rows = np.array(parts[0].vectors[key]["sample_id"].to_pylist()) == "s2"
        found = np.array(parts[0].vectors[key]["vector"].to_pylist())[rows]
        np.testing.assert_allclose(found, np.array(table["vector"].to_pylist()), atol=1e-3)


def test_a_part_again_is_the_same_and_the_order_of_parts_does_not_matter(plan, parts):
    for number in (1, 0, 1):
        assert equal(read_part(plan, number).tables(), parts[number])


def test_a_part_without_a_good_sample_has_rows_and_no_vectors(vlm):
    samples = [replace(made_sample(f"s{n}"), images=()) for n in range(3)]
    plan = Plan(vlm, bench_of(samples).choose(None), ("k_proj",), (0,), 2, 4)
    part = read_part(plan, 0).tables()
    assert part.samples["failure"].to_pylist() == ["the sample has no image"] * 3
    assert (part.tokens, part.vectors) == (None, {})


def test_no_hook_stays(plan, vlm, parts):
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules())

    before = hooks()  # transformers keeps hooks of its own once hidden states were asked for
    read_part(plan, 0)
    assert hooks() == before


@pytest.fixture(params=[1, 2], ids=["one lane", "two lanes"])
def in_lanes(request) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("in_lanes")
@pytest.mark.parametrize("thumbnails", [True, False])
def test_no_picture_is_alive_once_its_part_has_been_read(vlm, monkeypatch, thumbnails):
    """A photograph takes megabytes once it is decoded, and a part waits until it is written."""
    bench = bench_of([made_sample(f"s{n}") for n in range(8)])
    opened: dict[str, weakref.ref[Image.Image]] = {}
    real = bench.sample

    def sample(number):
        found = replace(real(number), images=(real(number).images[0].copy(),))
        opened[found.id] = weakref.ref(found.images[0])
        return found

    monkeypatch.setitem(vars(bench), "sample", sample)
    chosen = replace(bench.choose(None), places=tuple(range(8)))
    plan = Plan(vlm, chosen, ("k_proj",), (0,), 2, 4, thumbnails=thumbnails)
    held = []
    for part in read_parts(plan, [0, 1]):
        held.append(part)
        gc.collect()
        names = [entry.id for entry in plan.part(part.number).entries]
        assert [name for name in names if opened[name]() is not None] == []
    tables = [part.tables() for part in held]
    assert [table.thumbnails is not None for table in tables] == [thumbnails] * 2
    assert [row["n_images"] for table in tables for row in table.samples.to_pylist()] == [1] * 8
