"""Results come in the order of the items, whichever is finished first."""

import threading
import time

import pytest
import torch

from keygap.errors import UserError
from keygap.measurement.workers import MEMORY, side_by_side


@pytest.fixture(params=[1, 3])
def processors(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [0, MEMORY // 2, MEMORY + 1])
def test_in_the_order_of_the_items_and_side_by_side(processors, size):
    expected = {0: processors, MEMORY // 2: min(processors, 2), MEMORY + 1: 1}[size]
    at_once, running = [], []
    together = threading.Barrier(expected)  # what runs alone breaks it

    def compute(seconds):
        running.append(seconds)
        at_once.append(len(running))
        if len(at_once) <= expected:
            together.wait(60)
        time.sleep(seconds)
        running.remove(seconds)
        return threading.get_ident(), 10 * seconds

    items = [0.09, 0.01, 0.05, 0.02]
    found = list(side_by_side(compute, items, size))
    assert [(item, result) for item, (_, result) in found] == [(item, 10 * item) for item in items]
    assert max(at_once) == expected
    own = {thread for _, (thread, _) in found} == {threading.get_ident()}
    assert own == (expected == 1)


def test_an_error_ends_the_work(processors):
    seen = []

    def compute(item):
        seen.append(item)
        if item == 1:
            raise UserError("no such thing")
        return item

    with pytest.raises(UserError, match="no such thing"):
        list(side_by_side(compute, range(100), 0))
    assert len(seen) < 100
