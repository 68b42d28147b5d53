"""The stack calls ``decide`` and ``prepare`` in order, and neither while it is suspended."""

from __future__ import annotations

import pytest
import torch

from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples

from .test_interventions import Shift, footprint, logits
from .zoo import BY_FAMILY


@pytest.fixture(scope="module")
def vlm():
    return wrap(*BY_FAMILY["llava"].build(), name="tiny llava")


@pytest.fixture
def batch(vlm):
    return vlm.prompter(check_samples())


class Affine(Intervention):
    """Next-token logits times a factor plus a term."""

    sites = ()
    layers = ()

    def __init__(self, name, factor, term):
        self.name, self.factor, self.term = name, factor, term

    def decide(self, vlm, samples, batch, logits):
        return logits * self.factor + self.term


class First(Shift):
    """Notes the logits of a first pass, and of which interventions it is told."""

    def __init__(self):
        super().__init__(["hidden"], [1], 3.0)
        self.found, self.told = [], []

    def prepare(self, vlm, batch):
        self.told.append(vlm.interventions.identity)
        with Capture(vlm, ["hidden"], [2]) as capture:
            self.found.append(capture(batch)["hidden", 2].clone())


def test_decisions_are_made_in_order(vlm, batch):
    stack = vlm.interventions
    plain = torch.ones(2, 3)
    assert stack.decide(vlm, [], batch, plain) is plain
    with stack.applied(Affine("a", 2, 0), Shift(["hidden"], [0])), stack.applied(Affine("b", 1, 5)):
        assert torch.equal(stack.decide(vlm, [], batch, plain), plain * 2 + 5)
        with stack.suspended():
            assert stack.decide(vlm, [], batch, plain) is plain
    assert stack.decide(vlm, [], batch, plain) is plain


def test_a_pass_itself_is_not_decided(vlm, batch):
    before = logits(vlm, batch)
    with vlm.interventions.applied(Affine("a", 2, 1)):
        assert torch.equal(logits(vlm, batch), before)


def test_generation_under_a_decision_is_refused(vlm):
    batch = vlm.prompter(check_samples()[:1])
    with vlm.interventions.applied(Affine("a", 2, 1), Shift(["key"], [0]), Affine("b", 2, 1)):
        with pytest.raises(UserError, match=r"under a, b, which acts on the logits of its first"):
            vlm.generate(batch, max_new_tokens=2)
        with vlm.interventions.suspended():
            vlm.generate(batch, max_new_tokens=2)
    assert vlm.interventions.undecided == ""


def test_a_first_pass_is_without_those_that_need_one_and_under_the_others(vlm, batch):
    one, two, other = First(), First(), Shift(["hidden"], [0], 2.0)
    with vlm.interventions.applied(other), Capture(vlm, ["hidden"], [2]) as capture:
        expected = capture(batch)["hidden", 2].clone()
    before = footprint(vlm)
    with vlm.interventions.applied(one, other, two):
        inside = footprint(vlm)
        logits(vlm, batch)
        assert [len(hooks) for hooks in footprint(vlm)] == [len(hooks) for hooks in inside]
        assert footprint(vlm)[0] == inside[0]
        assert not vlm.interventions.preparing
        assert [each["factor"] for each in vlm.interventions.identity] == [3.0, 2.0, 3.0]
        with vlm.interventions.suspended():
            logits(vlm, batch)
    for first in (one, two):
        assert len(first.found) == 1
        assert torch.equal(first.found[0], expected)
        assert [each["factor"] for each in first.told[0]] == [2.0]
    assert footprint(vlm) == before


def test_a_first_pass_that_fails_leaves_the_stack_as_it_was(vlm, batch):
    class Broken(First):
        def prepare(self, vlm, batch):
            raise RuntimeError("in the middle")

    plain = logits(vlm, batch)
    with vlm.interventions.applied(Broken()):
        with pytest.raises(RuntimeError, match="in the middle"):
            logits(vlm, batch)
        assert not vlm.interventions.preparing
        assert len(vlm.interventions.active) == 1
    assert torch.equal(logits(vlm, batch), plain)


def test_a_layer_that_does_not_exist_is_one_line(vlm):
    before = footprint(vlm)
    for site in ("hidden", "key"):
        with pytest.raises(UserError, match=r"no layer 3 for 'shift': the model has 3 layers"):
            vlm.interventions.applied(Shift([site], [3])).__enter__()
    assert footprint(vlm) == before
    assert vlm.interventions.identity == []
