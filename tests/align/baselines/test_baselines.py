"""The registry of baselines, and settings that are refused in one line."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keygap.align.baselines import BASELINES, build, settings_of
from keygap.align.baselines.attention_bias import attention_bias
from keygap.errors import UserError
from keygap.models.interventions import Intervention

NEEDED = {"back-patching": {"source": 2, "target": 1}, "vcd": {}}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_built_with_its_defaults(name):
    needed = NEEDED.get(name, {"layers": [0]})
    built = build(name, **needed)
    assert isinstance(built, Intervention)
    assert built.name == name
    assert set(needed) <= set(settings_of(name))


def test_each_is_described_without_being_imported():
    assert all(text.endswith(".") for _, text in BASELINES.described())


def test_another_baseline_can_be_registered():
    BASELINES.register("mine", attention_bias)
    try:
        assert build("mine", layers=[1]).layers == [1]
    finally:
        BASELINES.unregister("mine")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pay", {}, "unknown baseline 'pay'; did you mean 'pai'"),
        ("pai", {"layers": [0], "alfa": 1}, "unknown setting of the baseline pai 'alfa'"),
        ("pai", {}, "the baseline pai needs layers"),
        ("pai", {"layers": []}, "layers is empty"),
        ("pai", {"layers": 3}, "layers is 3: give a list"),
        ("pai", {"layers": [1, 1]}, "layers has 1 twice"),
        ("pai", {"layers": [-1]}, "layers is -1: at least 0"),
        ("pai", {"layers": ["last"]}, "layers is 'last': a whole number"),
        ("pai", {"layers": [0], "alpha": math.nan}, "alpha is nan"),
        ("pai", {"layers": [0], "gamma": "2"}, "gamma is '2': a number is needed"),
        ("pai", {"layers": [0], "gamma": True}, "gamma is True: a number is needed"),
        ("pai", {"layers": [0], "plausibility": 1.5}, "plausibility is 1.5: a number from 0 to 1"),
        ("attention-bias", {"layers": [0], "nats": math.inf}, "nats is inf"),
        ("attention-bias", {"layers": [0], "queries": "texts"}, "unknown kind of token 'texts'"),
        ("attention-bias", {"layers": [0], "queries": []}, "no kind of token"),
        ("attention-bias", {"layers": [0], "queries": ["text", "all"]}, "give one alone"),
        ("vcd", {"layers": [0]}, "unknown setting of the baseline vcd 'layers'"),
        ("vcd", {"step": 1000}, "step is 1000: at most 999"),
        ("vcd", {"seed": -1}, "seed is -1"),
        ("vcd", {"plausibility": -0.1}, "plausibility is -0.1"),
        ("sink-redistribution", {"layers": [0], "p": 1.2}, "p is 1.2: a number from 0 to 1"),
        ("sink-redistribution", {"layers": [0], "share": -1}, "share is -1"),
        ("back-patching", {"source": 1, "target": 1}, "target is 1 and source 1"),
        ("back-patching", {"source": 1}, "the baseline back-patching needs target"),
        ("back-patching", {"source": 3, "target": 1, "window": 2}, "window is 2: an odd number"),
        ("back-patching", {"source": 3, "target": 0, "window": 3}, "begins below layer 0"),
        ("replaced-attention", {"layers": [0], "weights": "evn"}, "did you mean 'even'"),
        ("replaced-attention", {"layers": [0], "spread": -1}, "spread is -1"),
        ("replaced-attention", {"layers": [0], "seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_a_setting_that_is_not_possible_is_one_line(name, settings, message):
    with pytest.raises(UserError) as error:
        build(name, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers():
    built = build("attention-bias", layers=np.arange(2), nats=np.float32(0.5))
    assert built.identity()["layers"] == [0, 1]
    assert type(built.identity()["nats"]) is float
