"""A tiny LLaVA that is deep enough for early layers to change late ones, and its samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

import keygap as kg
from keygap.benchmarks import Sample
from keygap.models.load import wrap
from made import made_sample
from models.zoo import BY_FAMILY

DEPTH = 6
QUESTIONS = ("what is it?", "is there a red circle to the left of it?", "how many are there?")


def llava() -> kg.VLM:
    entry = BY_FAMILY["llava"]
    deep = replace(entry, config={**entry.config, "text_config__num_hidden_layers": DEPTH})
    return wrap(*deep.build(), name="tiny llava")


def pictures(count: int) -> list[Sample]:
    """Samples with pictures of noise and questions of several lengths."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        sample = made_sample(f"s{number}", QUESTIONS[number % 3])
        made.append(replace(sample, images=(Image.fromarray(pixels),)))
    return made
