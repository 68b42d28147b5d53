"""The tables of a part depend on the plan and nothing else; nothing is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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
