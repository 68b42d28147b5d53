"""The balance point of simulated answers of a known preference."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keygap.bias import PROBES, balance_point
from keygap.bias.table import SAMPLE_COLUMNS, bias_table
from keygap.errors import UserError


def simulated(rng, samples=120, point=-0.7, slope=2.0):
    """Six cases of each sample, whose answers also depend on the sample."""
    own = rng.normal(scale=0.3, size=samples)
    x = rng.uniform(-2.5, 2.5, size=(samples, 6))
    chance = 1 / (1 + np.exp(-slope * (x - point - own[:, None])))
    follows = rng.random(x.shape) < chance
    return x.ravel(), follows.ravel(), np.repeat(np.arange(samples), 6)


def test_the_planted_point_is_in_the_interval():
    rng = np.random.default_rng(0)
    held = []
    for trial in range(24):
        found = balance_point(*simulated(rng), n_bootstraps=60, seed=trial)
        held.append(found.low <= -0.7 <= found.high)
        assert found.high - found.low < 0.8
    assert np.mean(held) >= 0.82  # 95 % less three standard errors: 24 trials


def test_without_both_kinds_of_answer_there_is_no_point():
    x = np.linspace(-1, 1, 50)
    found = balance_point(x, np.ones(50, bool), np.arange(50))
    assert np.isnan(found.point)
    assert "50 of 50 answers follow the text" in found.note


def test_against_all_sense_there_is_no_point():
    x = np.linspace(-1, 1, 60)
    found = balance_point(x, x < 0, np.arange(60))
    assert np.isnan(found.point)
    assert "not followed more often" in found.note


def test_different_lengths_are_refused():
    with pytest.raises(UserError, match="3 differences"):
        balance_point(np.zeros(3), np.zeros(2, bool), np.arange(3))


def test_the_probe_gives_the_point_of_its_answers():
    """Answers that follow the text exactly where the image alone is less certain by half a nat."""
    probe = PROBES["balance"](levels=[1.0])
    rng = np.random.default_rng(1)
    rows = []
    for number in range(60):
        uncertain = {c: rng.uniform(0, 2.5) for c in ("as_is", "image_1", "text_0", "text_1")}
        for each in probe.conditions:
            row = {"probe": "balance", "condition": each.name, "variant": each.variant}
            chosen = "blue" if each.name.startswith("text") else "red"
            entropy = uncertain.get(each.name, 0.0)
            if each.name == "together":
                x = uncertain[each.image_only] - uncertain[each.text_only]
                follows = rng.random() < 1 / (1 + np.exp(-6 * (x - 0.5)))
                chosen = "blue" if follows else "red"
            rows.append({**row, "sample_id": number, "chosen": chosen, "entropy": entropy})
    samples = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).assign(correct=False, margin=0.0)
    settings = {"n_bootstraps": 100, "seed": 0}
    table = bias_table(samples, {}, [probe], settings)
    found = table.settings["analyses"]["balance"]
    assert found["n"] == 60 * 4
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] < 0.6
    assert table.notes == [f"balance: {found['summary']}"]
    assert "balance point 0." in table.notes[0]
