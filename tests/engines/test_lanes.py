"""Lanes compute what one model computes, share its weights and nothing else, and keep the order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import keygap as kg
from keygap.capture.hooks import Capture
from keygap.engines import lanes
from keygap.engines.lanes import lanes_of, side_by_side
from keygap.engines.part import read_parts
from keygap.engines.plan import Plan
from made import bench_of, made_sample
from models.zoo import ZOO


@pytest.fixture
def processors() -> Iterator[None]:
    """Three threads of torch, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("processors")
def test_lanes_share_parameters_and_neither_modules_nor_buffers(vlm):
    found = lanes_of(vlm)
    assert len(found) == 3
    assert found[0] is vlm
    for lane in found[1:]:
        assert [id(own) for own in lane.model.parameters()] == [
            id(own) for own in vlm.model.parameters()
        ]
        assert lane.prompter is vlm.prompter
        inside = {id(module) for module in lane.model.modules()}
        assert inside.isdisjoint(id(module) for module in vlm.model.modules())
        assert {id(lane.decoder), *(id(layer.attention) for layer in lane.layers)} <= inside
        for layer in lane.layers:
            assert {id(one.module) for one in layer.projections.values()} <= inside
        for own, other in zip(lane.model.buffers(), vlm.model.buffers(), strict=True):
            assert torch.equal(own, other)
            assert own.numel() == 0 or own.data_ptr() != other.data_ptr()


@pytest.mark.usefixtures("processors")
def test_parts_are_the_same_in_one_lane_and_in_three(vlm, monkeypatch):
    """To the last bit, because each pass has one processor either way."""
    samples = [made_sample(f"s{n}", "is it red? " * (1 + n % 3)) for n in range(14)]
    samples[4] = replace(samples[4], images=())
    plan = Plan(vlm, bench_of(samples).choose(None), ("k_proj", "query"), (0, 29), 2, 6)
    used = set()
    real = type(vlm).forward

    def forward(self, *arguments, **keywords):
        used.add(threading.current_thread().name)
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)
    together = [part.tables() for part in read_parts(plan, range(3))]
    assert torch.get_num_threads() == 3
    assert len({name for name in used if name.startswith("keygap-lane")}) == 3
    monkeypatch.setattr(lanes, "MOST", 1)
    torch.set_num_threads(1)
    alone = [part.tables() for part in read_parts(plan, range(3))]
    for one, other in zip(together, alone, strict=True):
        assert one.samples.equals(other.samples)
        assert one.tokens.equals(other.tokens)
        assert all(table.equals(other.vectors[key]) for key, table in one.vectors.items())


QUICK = ("llava", "qwen2_5_vl", "mllama", "qwen3_5")
FAMILIES = [
    pytest.param(entry, id=entry.family, marks=() if entry.family in QUICK else pytest.mark.slow)
    for entry in ZOO
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> kg.VLM:
    """Made and run before a test begins: what transformers announces of it is not the test's."""
    model, processor = request.param.build()
    vlm = kg.load(model, processor=processor)
    vlm.forward(vlm.prompter([made_sample("first")]))
    return vlm


@pytest.mark.usefixtures("processors")
def test_every_family_computes_the_same_in_lanes(family, monkeypatch):
    samples = [made_sample(f"s{n}", "is it red? " * (1 + n % 3)) for n in range(6)]
    layers = tuple(family.layer_indices(["all"]))
    plan = Plan(family, bench_of(samples).choose(None), ("hidden",), layers, 1, 6)
    assert len(lanes_of(family)) == 3
    (together,) = (part.tables() for part in read_parts(plan, [0]))
    monkeypatch.setattr(lanes, "MOST", 1)
    torch.set_num_threads(1)
    (alone,) = (part.tables() for part in read_parts(plan, [0]))
    assert together.samples.equals(alone.samples)
    assert together.vectors.keys() == alone.vectors.keys()
    for key, table in together.vectors.items():
        assert table["vector"].equals(alone.vectors[key]["vector"])
        # queries of cross-attention layers receive none, which is NaN
        one, other = (found["attention"].to_numpy() for found in (table, alone.vectors[key]))
        np.testing.assert_array_equal(one, other)


class Foreign(nn.Module):
    """A module of a package that keygap does not know."""


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize(
    "change",
    ["hook", "forward", "compiled", "module", "intervention", "class", "rope", "attention"],
)
def test_a_model_that_is_not_as_its_package_made_it_has_one_lane(vlm, monkeypatch, change):
    layer = vlm.layers[3].attention
    if change == "hook":
        handle = layer.register_forward_hook(lambda *arguments: None)
        assert lanes_of(vlm) == [vlm]
        handle.remove()
    elif change == "forward":
        monkeypatch.setitem(vars(layer), "forward", layer.forward)
        assert lanes_of(vlm) == [vlm]
    elif change == "compiled":
        monkeypatch.setitem(vars(layer), "_compiled_call_impl", layer.forward)
        assert lanes_of(vlm) == [vlm]
    elif change == "module":
        monkeypatch.setitem(layer._modules, "of_my_own", Foreign())
        assert lanes_of(vlm) == [vlm]
    elif change == "class":
        monkeypatch.setattr(type(layer), "forward", lambda self, *arguments: None)
        assert lanes_of(vlm) == [vlm]
    elif change == "rope":
        monkeypatch.setattr(vlm.decoder.rotary_emb, "rope_type", "dynamic")
        assert lanes_of(vlm) == [vlm]
    elif change == "attention":
        monkeypatch.setattr(layer.config, "_attn_implementation_internal", "flex_attention")
        assert lanes_of(vlm) == [vlm]
    else:
        monkeypatch.setattr(type(vlm.interventions), "active", (object(),))
        assert lanes_of(vlm) == [vlm]
    monkeypatch.undo()
    assert len(lanes_of(vlm)) == 3


@pytest.mark.usefixtures("processors")
def test_what_the_caller_has_set_beside_the_model_keeps_one_lane(vlm):
    with torch.autocast("cpu", torch.bfloat16):
        assert lanes_of(vlm) == [vlm]
    with Capture(vlm, ["query"], [0]):
        assert lanes_of(vlm) == [vlm]
    handle = register_module_forward_hook(lambda *arguments: None)
    assert lanes_of(vlm) == [vlm]
    handle.remove()
    assert len(lanes_of(vlm)) == 3


@pytest.mark.usefixtures("processors")
def test_modules_that_cannot_be_copied_keep_one_lane(vlm, monkeypatch, caplog):
    monkeypatch.setattr(vlm.layers[3].attention, "guard", threading.Lock(), raising=False)
    with caplog.at_level(logging.INFO, "keygap"):
        assert lanes_of(vlm) == [vlm]
    assert "one batch at a time, its modules cannot be copied" in caplog.text


@pytest.mark.parametrize(
    ("threads", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 3), (7, 3), (8, 4)]
)
def test_lanes_use_as_many_processors_as_they_can(vlm, monkeypatch, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert len(lanes_of(vlm)) == expected


@pytest.mark.usefixtures("processors")
def test_results_keep_the_order_of_items_and_a_lane_has_one_item_at_a_time():
    busy: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    most, taken = [], []

    def run(lane: str, item: int) -> tuple[int, int]:
        busy[lane] += 1
        most.append(busy[lane])
        time.sleep(0.02 if item % 3 == 0 else 0.001)  # later items finish first
        assert torch.get_num_threads() == 1
        busy[lane] -= 1
        return item, item * item

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    for number, (item, result) in enumerate(side_by_side(run, list(busy), items())):
        assert (item, result) == (number, number**2)
        assert len(taken) <= number + 4
    assert number == 19
    assert max(most) == 1
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("processors")
def test_an_error_arrives_in_its_turn_and_later_items_are_not_begun():
    begun = []

    def run(lane: int, item: int) -> int:
        begun.append(item)
        if item == 2:
            raise LookupError("of item 2")
        return item

    found: list[int] = []
    with pytest.raises(LookupError, match="of item 2"):
        found.extend(side_by_side(run, [0, 1], range(50)))
    assert len(begun) <= 6
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("processors")
def test_items_that_end_in_an_error_leave_the_results_before_it():
    def items() -> Iterator[int]:
        yield from range(5)
        raise LookupError("no more")

    found: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        found.extend(side_by_side(lambda lane, item: item, [0, 1], items()))
    assert found == list(range(5))


@pytest.mark.usefixtures("processors")
def test_closing_does_not_wait_for_whole_passes(vlm, good_samples, monkeypatch):
    layers = []
    real = Capture._keep

    def keep(self, key, vectors):
        time.sleep(0.05)
        layers.append(key)
        real(self, key, vectors)

    monkeypatch.setattr(Capture, "_keep", keep)
    plan = Plan(vlm, bench_of(good_samples).choose(None), ("k_proj",), tuple(range(30)), 2, 2)
    parts = read_parts(plan, range(4))
    next(parts)
    before = len(layers)
    parts.close()
    assert len(layers) <= before + 3 * 2
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("processors")
def test_one_lane_runs_in_the_calling_thread_with_all_processors():
    def run(lane: str, item: int) -> tuple[str, int, int]:
        return lane, item, torch.get_num_threads() * (threading.current_thread() is main)

    main = threading.current_thread()
    found = list(side_by_side(run, ["only"], [7, 8]))
    assert found == [("only", 7, 3), ("only", 8, 3)]
