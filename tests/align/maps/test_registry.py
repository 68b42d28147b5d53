"""The kinds of map are found by name, and another package adds one with one function."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.align.fitting import fit
from keygap.align.maps import MAPS, HeadMap, control, is_control
from keygap.errors import UserError

from ..made_vectors import planted, source

CONTROLS = {"random-direction", "shuffled-labels", "text-text"}


def test_the_kinds_and_which_of_them_are_controls():
    assert set(MAPS) == CONTROLS | {
        "mean-shift", "mean-variance", "optimal-transport", "coral", "procrustes", "norms",
    }  # fmt: skip
    assert {name for name in MAPS if is_control(name)} == CONTROLS
    assert all(line.endswith(".") for _, line in MAPS.described())


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="unknown map 'meanshift'; did you mean 'mean-shift'"):
        fit("meanshift", source(planted(range(3))))


def test_a_kind_of_another_package_is_one_function():
    @control
    def to_zero(image, text, context):
        return HeadMap(np.zeros(image.shape[1]), scale=np.zeros(image.shape[1]))

    MAPS.register("to-zero", to_zero)
    try:
        own = fit("to-zero", source(planted(range(3))))
        assert is_control("to-zero")
    finally:
        MAPS.unregister("to-zero")
    assert own.name == "to-zero"
    assert not own.layers[0].scale.any()
