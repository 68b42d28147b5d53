"""The tokens that a choice measures: a number of image tokens and as many text tokens.

All choices of a store share one random order of its samples, and tokens are taken from the samples
in turn in this order. So 200 tokens are a part of 1,000, two choices that differ in their space
hold the same tokens, and the two halves of a modality are the same samples for both modalities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from keygap import gap, random_streams
from keygap.choices.levels import (
    KEPT,
    PCA,
    RAW,
    SAMPLE,
    TEXTS,
    TOKEN,
    WITHOUT_MASSIVE,
    WITHOUT_SINKS,
)
from keygap.contrasts.confounds import massive_dimensions
from keygap.contrasts.contrast import NotMeasurable
from keygap.contrasts.labels import is_image, is_sink, is_text
from keygap.gap.core.inputs import MIN_SAMPLES
from keygap.gap.core.standardise import standardise
from keygap.store import LabelledVectors

CONTRASTS = ("cross", "image_image", "text_text")  # columns of the table, in this order


@dataclass(frozen=True)
class Selection:
    """Image and text tokens of one layer, text, treatment of outliers and number of tokens.

    Attributes:
        image: vectors of the image tokens, (n, heads, head_dim).
        text: vectors of as many text tokens.
        sample_image: index of the sample of each image token.
        sample_text: index of the sample of each text token.
        token_half_image: 0 or 1, the random half of each image token.
        token_half_text: the same for text tokens.
        n_samples: number S of samples; sample s is in half ``s % 2``.
        dimensions: those that are compared.
    """

    image: Float[np.ndarray, "n heads head_dim"]
    text: Float[np.ndarray, "n heads head_dim"]
    sample_image: Int[np.ndarray, " n"]
    sample_text: Int[np.ndarray, " n"]
    token_half_image: Int[np.ndarray, " n"]
    token_half_text: Int[np.ndarray, " n"]
    n_samples: int
    dimensions: Bool[np.ndarray, "heads head_dim"]

    def points(
        self, space: str, head: int | None
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
        """Image and text vectors in the coordinates of a space, fitted to both sides together.

        Args:
            space: ``raw``, ``standardised`` or ``pca_50``.
            head: one head; None: all, concatenated.
        """
        heads = slice(None) if head is None else slice(head, head + 1)
        kept = self.dimensions[heads]
        image, text = (
            np.ascontiguousarray(side[:, heads][:, kept]) for side in (self.image, self.text)
        )
        if space == RAW:
            return image, text
        if space == PCA:
            found = gap.Sides(image, text).components
            return found[0].astype(np.float32), found[1].astype(np.float32)
        return standardise(image, text)

    def rows(self, contrast: str, unit: str) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
        """Rows of the two sides of a contrast among the image tokens followed by the text tokens.

        Args:
            contrast: one of ``CONTRASTS``.
            unit: ``sample`` or ``token``, which says what the halves of a modality are.
        """
        n = len(self.image)
        if contrast == "cross":
            return np.arange(n), np.arange(n, n + len(self.text))
        of_image = contrast == "image_image"
        sample = self.sample_image if of_image else self.sample_text
        by_token = self.token_half_image if of_image else self.token_half_text
        half = sample % 2 if unit == SAMPLE else by_token
        start = 0 if of_image else n
        return start + np.flatnonzero(half == 0), start + np.flatnonzero(half == 1)

    @property
    def samples(self) -> Int[np.ndarray, " n+m"]:
        """Index of the sample of every token, image tokens first."""
        return np.concatenate([self.sample_image, self.sample_text])

    def groups(self, rows: Int[np.ndarray, " n"], unit: str) -> list[int] | None:
        """Sample ids of some rows, as the statistics take them; None where tokens are the unit."""
        return None if unit == TOKEN else self.samples[rows].tolist()


@dataclass(frozen=True)
class Layer:
    """The vectors of one layer, with the shared random order of the store's samples.

    Attributes:
        vectors: all labelled vectors.
        seed: of the order of samples and the choice of tokens.
    """

    vectors: LabelledVectors
    seed: int

    def select(self, text: str, outliers: str, tokens: int) -> Selection:
        """Select the tokens of a choice.

        Raises:
            NotMeasurable: the store does not have them; the message says what it has.
        """
        image_mask, text_mask = self.masks(text, outliers)
        labels = self.vectors.labels
        ids = labels["sample_id"].astype(str).to_numpy()
        shared = set(ids[image_mask]) & set(ids[text_mask])
        if len(shared) < 2 * MIN_SAMPLES:
            raise NotMeasurable(
                f"{len(shared)} samples have image tokens and such text, {2 * MIN_SAMPLES} are "
                "needed for two halves"
            )
        order = self._order(shared)
        taken = []
        for side, mask in (("image", image_mask), ("text", text_mask)):
            rows = np.flatnonzero(mask & np.isin(ids, order))
            if len(rows) < tokens:
                raise NotMeasurable(f"{tokens} {side} tokens: the store has {len(rows)}")
            taken.append(self._in_turn(rows, ids, order, side)[:tokens])
        index = {name: number for number, name in enumerate(order)}
        samples = [np.array([index[name] for name in ids[rows]]) for rows in taken]
        vectors = [self.vectors.array[rows] for rows in taken]
        halves = [self._token_halves(tokens, side) for side in ("image", "text")]
        if outliers == WITHOUT_MASSIVE:
            dimensions = ~massive_dimensions(np.concatenate(vectors))
        else:
            dimensions = np.ones(self.vectors.array.shape[1:], dtype=bool)
        n_samples = 1 + max(int(of_side.max()) for of_side in samples)
        return Selection(
            image=vectors[0],
            text=vectors[1],
            sample_image=samples[0],
            sample_text=samples[1],
            token_half_image=halves[0],
            token_half_text=halves[1],
            n_samples=n_samples,
            dimensions=dimensions,
        )

    def masks(
        self, text: str, outliers: str
    ) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Image tokens and text tokens of a level of text, with or without attention sinks.

        Raises:
            NotMeasurable: there are none, or there is no sink to leave out.
        """
        labels = self.vectors.labels
        image, words = is_image(labels), is_text(labels, TEXTS[text])
        if not image.any() or not words.any():
            raise NotMeasurable("there are no image tokens and such text at this layer")
        if outliers != WITHOUT_SINKS:
            return image, words
        if labels["attention"].isna().all():
            raise NotMeasurable("the store has no attention received, so sinks are unknown")
        sinks = is_sink(labels)
        if not (sinks & (image | words)).any():
            raise NotMeasurable("no attention sink is among these tokens")
        return image & ~sinks, words & ~sinks

    def _order(self, ids: set[str]) -> np.ndarray:
        """Random order of samples, the same in every layer and model of the same samples."""
        rng = random_streams.generator(self.seed, "choices", "samples")
        names = np.array(sorted(map(str, pd.unique(self.vectors.labels["sample_id"]))))
        return np.array([name for name in rng.permutation(names) if name in ids])

    def _in_turn(
        self, rows: Int[np.ndarray, " n"], ids: np.ndarray, order: np.ndarray, side: str
    ) -> Int[np.ndarray, " n"]:
        """Rows in an order in which the samples take turns, each with a random token of its own."""
        rng = random_streams.generator(self.seed, "choices", "tokens", side)
        shuffled = rng.permutation(rows)
        place = pd.Series(np.arange(len(order)), index=order)
        sample = place[ids[shuffled]].to_numpy()
        turn = pd.Series(sample).groupby(sample).cumcount().to_numpy()
        return shuffled[np.lexsort((sample, turn))]

    def _token_halves(self, n: int, side: str) -> Int[np.ndarray, " n"]:
        rng = random_streams.generator(self.seed, "choices", "token halves", side)
        return rng.permutation(np.arange(n) % 2)


def is_same(layer: Layer, text: str, before: str) -> bool:
    """Whether two levels of text select the same tokens, so that they are one choice."""
    return bool(np.array_equal(layer.masks(text, KEPT)[1], layer.masks(before, KEPT)[1]))
