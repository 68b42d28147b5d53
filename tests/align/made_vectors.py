"""Gaussian image and text vectors in samples, as vectors that a map is fitted on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keygap.align.maps import FitContext
from keygap.align.vectors import FitVectors
from keygap.store import LabelledVectors

HEADS, HEAD_DIM = 2, 4
WORDS = ("a", "red", "circle", "is", "it", "the")


def gaussian(rng: np.random.Generator, mean: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mixing matrix of each head: a Gaussian with correlated dimensions."""
    mixing = rng.normal(size=(HEADS, HEAD_DIM, HEAD_DIM)) * size
    return mean * rng.normal(size=(HEADS, HEAD_DIM)), mixing


def planted(
    samples: range, image: int = 12, text: int = 8, seed: int = 0, shape_seed: int = 7
) -> LabelledVectors:
    """Image and text tokens of two Gaussians that ``shape_seed`` fixes; the first image token of
    each sample is a sink, which lies far away."""
    shapes = np.random.default_rng(shape_seed)
    kinds = gaussian(shapes, 2.0, 1.0), gaussian(shapes, 2.0, 0.4)
    rng = np.random.default_rng([seed, samples.start])
    rows, vectors = [], []
    for sample in samples:
        for position in range(image + text):
            of_text = position >= image
            mean, mixing = kinds[of_text]
            sink = position == 0
            vectors.append(
                mean + np.einsum("hd,hde->he", rng.normal(size=mean.shape), mixing) + 100 * sink
            )
            rows.append(
                {
                    "sample_id": f"s{sample:04}",
                    "position": position,
                    "token": WORDS[int(rng.integers(6))] if of_text else "<image>",
                    "modality": "text" if of_text else "image",
                    "role": "question" if of_text else "",
                    "attention": 50.0 if sink else 1.0,
                }
            )
    return LabelledVectors(np.stack(vectors).astype(np.float32), pd.DataFrame(rows))


def source(
    vectors: LabelledVectors, site: str = "k_proj", layers: tuple[int, ...] = (0,)
) -> FitVectors:
    """Vectors that are the same at each layer."""
    return FitVectors({(site, layer): vectors for layer in layers}, {"model": "made"})


def context_of(
    image: np.ndarray, text: np.ndarray, per_sample: int = 1, seed: int = 0
) -> FitContext:
    """The context of arrays whose samples have so many tokens on either side."""
    return FitContext(
        groups_image=np.array([f"s{n // per_sample:04}" for n in range(len(image))]),
        groups_text=np.array([f"s{n // per_sample:04}" for n in range(len(text))]),
        words_text=np.array([WORDS[n % 6] for n in range(len(text))]),
        rng=np.random.default_rng(seed),
        order_seed=seed,
    )
