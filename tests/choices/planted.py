"""Stores around vectors that a test plants, and the same numbers by another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from keygap.store import LabelledVectors, Store

N_LAYERS = 3


class PlantedStore:
    """What ``specifications`` asks of a store."""

    def __init__(self, name: str, layers: Mapping[int, LabelledVectors], benchmark: str) -> None:
        self.of_layer = dict(layers)
        self.root = Path(name)
        self.sites = ["k_proj"]
        self.manifest: dict[str, Any] = {
            "model": name, "connector": "none", "benchmark": benchmark, "n_layers": N_LAYERS,
        }  # fmt: skip

        names = sorted({name for each in layers.values() for name in each.labels["sample_id"]})
        self.samples = pd.DataFrame({"sample_id": names, "failure": [None] * len(names)})

    def layers(self, site: str) -> list[int]:
        return sorted(self.of_layer)

    def layer(self, site: str, layer: int) -> LabelledVectors:
        return self.of_layer[layer]


def planted(
    name: str = "made",
    gap: float = 1.0,
    *,
    layers: Sequence[int] = (0, 1, 2),
    samples: int = 40,
    image_tokens: int = 6,
    words: int = 5,
    heads: int = 2,
    head_dim: int = 8,
    by_sample: float = 0.0,
    attention: float | None = 1.0,
    benchmark: str = "made",
    seed: int = 0,
) -> Store:
    """A store whose image tokens are moved by a gap from its text tokens.

    Args:
        name: of the model.
        gap: length of the move, in deviations of the noise.
        layers: that the store has.
        samples: number of samples.
        image_tokens: of a sample.
        words: question tokens of a sample; there is one template token more.
        heads: of every vector.
        head_dim: columns of a head.
        by_sample: deviation of what all tokens of a sample share.
        attention: that every token receives; None: it was not stored.
        benchmark: its name.
        seed: of the noise.
    """
    found = {}
    for layer in layers:
        rng = np.random.default_rng([seed, layer])
        rows = [
            _row(sample, position, image_tokens, words, attention)
            for sample in range(samples)
            for position in range(image_tokens + words + 1)
        ]
        labels = pd.DataFrame(rows)
        array = rng.normal(size=(len(labels), heads, head_dim))
        shared = by_sample * rng.normal(size=(samples, heads, head_dim))
        array += np.repeat(shared, image_tokens + words + 1, axis=0)
        image = (labels["modality"] == "image").to_numpy()
        array[image] += gap / np.sqrt(heads * head_dim)
        found[layer] = LabelledVectors(array.astype(np.float32), labels)
    return cast(Store, PlantedStore(name, found, benchmark))


def made_by(store: Store) -> PlantedStore:
    """What a test planted, to change it."""
    return cast(PlantedStore, store)


def _row(
    sample: int, position: int, image_tokens: int, words: int, attention: float | None
) -> dict[str, object]:
    is_image, last = position < image_tokens, position == image_tokens + words
    return {
        "sample_id": f"s{sample:03d}",
        "position": position,
        "modality": "image" if is_image else "text",
        "role": "" if is_image else "template" if last else "question",
        "token_id": 50 if is_image else position,
        "attention": np.nan if attention is None else attention,
    }
