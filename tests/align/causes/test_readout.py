"""The linear probe of image tokens is judged on images that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.align.causes.readout import readout
from keygap.bias.intervals import proportion

IMAGES, QUESTIONS = 40, 3
SHOWN = np.repeat([f"image {number}" for number in range(IMAGES)], QUESTIONS)


def test_what_is_known_of_an_image_alone_is_not_read():
    """Each image has one answer and a vector of its own, so questions share both."""
    rng = np.random.default_rng(0)
    answers = np.repeat(rng.choice(["a", "b"], IMAGES), QUESTIONS)
    states = np.repeat(rng.normal(size=(IMAGES, 64)), QUESTIONS, axis=0)
    found = readout(states, answers, SHOWN, 0)
    apart = readout(states, answers, np.arange(len(SHOWN)).astype(str), 0)
    assert found is not None
    assert apart is not None
    assert apart.value > 0.95
    assert found.low < 0.5 < found.high


def test_the_interval_counts_images():
    rng = np.random.default_rng(1)
    answers = np.repeat(rng.choice(["a", "b"], IMAGES), QUESTIONS)
    told = np.repeat(rng.random(IMAGES) < 0.8, QUESTIONS)  # whether the image shows its answer
    states = ((answers == "a") == told)[:, None] + 0.0
    found = readout(states, answers, SHOWN, 0)
    assert found is not None
    assert found.value == pytest.approx(told.mean(), abs=0.01)
    alone = proportion(told)
    assert found.high - found.low > 1.4 * (alone.high - alone.low)


def test_answers_of_too_few_images_are_left_out():
    answers = np.array(["a"] * 60 + ["b"] * 48 + ["c"] * 12)  # c is said of 4 images
    states = np.stack([answers == "a", answers == "b"], 1) + 0.0
    found = readout(states, answers, SHOWN, 0)
    assert found is not None
    assert (found.value, found.n) == (1.0, 108)
    assert readout(states[48:], np.where(answers == "c", "b", "c")[48:], SHOWN[48:], 0) is None
    assert readout(states * np.nan, answers, SHOWN, 0) is None
