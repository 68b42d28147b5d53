"""Attention to image sinks goes to the other image tokens, in image-centric heads alone."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from keygap.align.baselines.sink_redistribution import sink_redistribution
from keygap.errors import UserError
from keygap.models.positions import PromptLabels
from keygap.selfcheck.samples import check_samples

from .by_hand import assert_attends, chosen, given, images, logits, softmax, tiny


def sinks_of(weights, seen, labels, share):
    """Image tokens that receive so many times their even share from the last 8 positions."""
    last = range(len(labels) - 8, len(labels))
    received = torch.stack([weights[:, q] * int(seen[0, q].sum()) for q in last]).mean((0, 1))
    return [place for place in images(labels) if received[place] >= share]


def expected(batch, mine, settings, queries="text"):
    """Weights by the definition, one query and head at a time, and how many were changed."""
    weights = softmax(mine.products, mine.seen)
    changed, changeable = 0, 0
    for row, labels in enumerate(batch.labels):
        plain = weights[row].clone()
        sinks = sinks_of(plain, mine.seen[row], labels, settings["share"])
        others = [place for place in images(labels) if place not in sinks]
        assert sinks
        assert others
        for query in chosen(labels, queries):
            for head in range(plain.shape[0]):
                own = plain[head, query]
                taken, rest = own[sinks].sum(), own[others].sum()
                changeable += 1
                if rest == 0 or taken + rest < settings["image_at_least"]:
                    continue
                if taken / (taken + rest) > settings["sinks_at_most"]:
                    continue
                weights[row, head, query, sinks] = (1 - settings["p"]) * own[sinks]
                weights[row, head, query, others] += settings["p"] * taken * own[others] / rest
                changed += 1
    return weights, changed, changeable


ALL_HEADS: dict[str, Any] = {"image_at_least": 0.0, "sinks_at_most": 1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"p": 0.6, "share": 1.05, **ALL_HEADS},
        {"p": 1.0, "share": 1.05, **ALL_HEADS},
        {"p": 0.6, "share": 1.05, "image_at_least": 0.3, "sinks_at_most": 0.5},
    ],
)
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_attention_is_that_of_the_definition(family, settings):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples())
    for layer in (0, 2):
        mine = given(vlm, batch)[layer]
        own, changed, changeable = expected(batch, mine, settings)
        if settings["image_at_least"]:
            assert 0 < changed < changeable
        with vlm.interventions.applied(sink_redistribution(layers=[layer], **settings)):
            assert_attends(vlm, batch, layer, own, mine)


def test_the_current_query_alone():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    mine = given(vlm, batch)[1]
    settings = {"p": 0.5, "share": 1.05, **ALL_HEADS}
    own, *_ = expected(batch, mine, settings, "current")
    with vlm.interventions.applied(sink_redistribution(layers=[1], queries="current", **settings)):
        assert_attends(vlm, batch, 1, own, mine)


@pytest.mark.parametrize("settings", [{"p": 0}, {"p": 1, "image_at_least": 1}])
def test_nothing_moved_changes_nothing(settings):
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with vlm.interventions.applied(
        sink_redistribution(layers=[0, 1, 2], share=1.05, **{**ALL_HEADS, **settings})
    ):
        found = logits(vlm, batch)
    if settings["p"] == 0:
        assert torch.equal(found, plain)
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        torch.testing.assert_close(found[row, :size], plain[row, :size], atol=1e-6, rtol=1e-5)


def test_without_sinks_nothing_changes():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with vlm.interventions.applied(sink_redistribution(layers=[0, 1, 2], share=1e5, **ALL_HEADS)):
        found = logits(vlm, batch)
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        torch.testing.assert_close(found[row, :size], plain[row, :size], atol=1e-6, rtol=1e-5)


def test_a_pass_that_begins_after_the_prompt_has_no_sinks():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples()[:1])
    known = inspect.signature(vlm.model.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"  # renamed in transformers 5.24
    with torch.no_grad():
        cache = getattr(vlm.model(**vlm.inputs_of(batch), use_cache=True), name)
    one = sink_redistribution(layers=[1], share=1.05)
    with (
        vlm.interventions.applied(one),
        vlm.interventions.labels_of(batch),
        pytest.raises(UserError, match=f"begins at position {PromptLabels.of(batch).width}"),
        torch.no_grad(),
    ):
        vlm.model(input_ids=torch.tensor([[5]]), **{name: cache})


def test_identity_has_all_that_decides():
    assert sink_redistribution(layers=[2]).identity() == {
        "name": "sink-redistribution",
        "layers": [2],
        "sites": ["attention"],
        "p": 0.6,
        "image_at_least": 0.2,
        "sinks_at_most": 0.5,
        "share": 5.0,
        "queries": ["text"],
    }
