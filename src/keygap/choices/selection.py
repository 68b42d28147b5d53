"""The tokens that a choice measures: a number of image tokens and as many text tokens.

All choices of a benchmark share one random order of its samples, by a hash of the seed and the id,
and tokens are taken from the samples in turn in this order. So 200 tokens are a part of 1,000, two
choices that differ in their space hold the same tokens, and a sample that one model lacks moves no
other one.

The rank of a sample in this order decides its half and its group. It is counted among all samples
that the runs of a benchmark were asked for, whether or not they were read or have such tokens. So
every model and every choice has a sample in the same half and group. Halves and groups are equal in
size, apart from samples that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from keygap.contrasts.labels import is_image, is_sink, is_text, rank, refuse_unknown_sinks
from keygap.contrasts.sides import Layer as StoredLayer
from keygap.gap.core.inputs import MIN_SAMPLES
from keygap.gap.core.standardise import standardise

CONTRASTS = ("cross", "image_image", "text_text")  # columns of the table, in this order


def ranks_of(ids: Iterable[str], seed: int) -> dict[str, int]:
    """The rank of every sample in a random order that depends on the seed and the ids alone.

    Args:
        ids: of the samples.
        seed: of the order.
    """
    own = random_streams.integer(seed, "choices", "samples")
    ordered = sorted(set(ids), key=lambda name: rank(own, name))
    return {name: place for place, name in enumerate(ordered)}


@dataclass(frozen=True)
class Picked:
    """Which tokens of a layer a choice takes, as their labels say.

    Attributes:
        rows: of the layer, those of the image tokens and those of as many text tokens.
        samples: index of the sample of each of these tokens.
        ranks: rank of each sample, ascending.
        outliers: the level of ``outliers``.
    """

    rows: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
    samples: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
    ranks: Int[np.ndarray, " S"]
    outliers: str


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
        ranks: rank of each of the S samples; sample s is in half ``ranks[s] % 2``.
        dimensions: those that are compared.
    """

    image: Float[np.ndarray, "n heads head_dim"]
    text: Float[np.ndarray, "n heads head_dim"]
    sample_image: Int[np.ndarray, " n"]
    sample_text: Int[np.ndarray, " n"]
    token_half_image: Int[np.ndarray, " n"]
    token_half_text: Int[np.ndarray, " n"]
    ranks: Int[np.ndarray, " S"]
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
        half = self.halves[sample] if unit == SAMPLE else by_token
        start = 0 if of_image else n
        return start + np.flatnonzero(half == 0), start + np.flatnonzero(half == 1)

    @property
    def n_samples(self) -> int:
        """The number S of samples."""
        return len(self.ranks)

    @property
    def halves(self) -> Int[np.ndarray, " S"]:
        """0 or 1, the half of each sample."""
        return self.ranks % 2

    @property
    def samples(self) -> Int[np.ndarray, " n+m"]:
        """Index of the sample of every token, image tokens first."""
        return np.concatenate([self.sample_image, self.sample_text])

    def groups(self, rows: Int[np.ndarray, " n"], unit: str) -> list[int] | None:
        """Sample ids of some rows, as the statistics take them; None where tokens are the unit."""
        return None if unit == TOKEN else self.samples[rows].tolist()


@dataclass(frozen=True)
class Layer:
    """One layer of a store, with the shared random order of the benchmark's samples.

    Attributes:
        vectors: all labelled vectors, in memory or on disk.
        ranks: rank of every sample, by its id (see ``ranks_of``).
        seed: of the choice of tokens.
    """

    vectors: StoredLayer
    ranks: Mapping[str, int]
    seed: int

    def select(self, text: str, outliers: str, tokens: int) -> Selection:
        """Select the tokens of a choice.

        Raises:
            NotMeasurable: the store does not have them; the message says what it has.
        """
        picked = self.pick(text, outliers, tokens)
        return self.read([picked]).select(picked)

    def pick(self, text: str, outliers: str, tokens: int) -> Picked:
        """Find the tokens of a choice, without their vectors.

        Raises:
            NotMeasurable: the store does not have them; the message says what it has.
        """
        masks = self.masks(text, outliers)
        ids = self.vectors.labels["sample_id"].astype(str).to_numpy()
        shared = set(ids[masks[0]]) & set(ids[masks[1]])
        if len(shared) < 2 * MIN_SAMPLES:
            raise NotMeasurable(
                f"{len(shared)} samples have image tokens and such text, {2 * MIN_SAMPLES} are "
                "needed for two halves"
            )
        order = sorted(shared, key=self.ranks.__getitem__)
        rows, samples = [], []
        for side, mask in zip(("image", "text"), masks, strict=True):
            own = np.flatnonzero(mask & np.isin(ids, order))
            if len(own) < tokens:
                raise NotMeasurable(f"{tokens} {side} tokens: the store has {len(own)}")
            taken, sample = self._in_turn(own, pd.Index(order).get_indexer(ids[own]), side)
            rows.append(taken[:tokens])
            samples.append(sample[:tokens])
        used = order[: 1 + max(int(sample.max()) for sample in samples)]
        ranks = np.array([self.ranks[name] for name in used])
        smaller = int(np.bincount(ranks % 2, minlength=2).min())
        if smaller < MIN_SAMPLES:
            raise NotMeasurable(
                f"{smaller} of the samples are in one of the halves, {MIN_SAMPLES} are needed"
            )
        return Picked((rows[0], rows[1]), (samples[0], samples[1]), ranks, outliers)

    def read(self, picked: Iterable[Picked]) -> Vectors:
        """Read the vectors of several choices; those on disk are read once."""
        nothing = np.zeros(0, dtype=np.int64)
        rows = np.unique(np.concatenate([nothing, *(own for one in picked for own in one.rows)]))
        wanted = np.zeros(len(self.vectors.labels), dtype=bool)
        wanted[rows] = True
        return Vectors(rows, self.vectors.where_each([wanted])[0].array, self.seed)

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
        refuse_unknown_sinks(labels, image | words)
        sinks = is_sink(labels)
        if not (sinks & (image | words)).any():
            raise NotMeasurable("no attention sink is among these tokens")
        return image & ~sinks, words & ~sinks

    def _in_turn(
        self, rows: Int[np.ndarray, " n"], samples: Int[np.ndarray, " n"], side: str
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Rows in an order in which the samples take turns, each with a random token of its own.

        Returns:
            The rows, and the sample of each.
        """
        rng = random_streams.generator(self.seed, "choices", "tokens", side)
        shuffled = rng.permutation(len(rows))
        sample = samples[shuffled]
        turn = pd.Series(sample).groupby(sample).cumcount().to_numpy()
        order = np.lexsort((sample, turn))
        return rows[shuffled][order], sample[order]


@dataclass(frozen=True)
class Vectors:
    """The vectors of some rows of a layer, in memory.

    Attributes:
        rows: ascending.
        array: their vectors.
        seed: of the halves of the tokens.
    """

    rows: Int[np.ndarray, " k"]
    array: Float[np.ndarray, "k heads head_dim"]
    seed: int

    def select(self, picked: Picked) -> Selection:
        """The tokens of a choice, whose rows are among these.

        Raises:
            NotMeasurable: there is no massive dimension to leave out.
        """
        image, text = (self.array[np.searchsorted(self.rows, own)] for own in picked.rows)
        dimensions = np.ones(self.array.shape[1:], dtype=bool)
        if picked.outliers == WITHOUT_MASSIVE:
            dimensions = ~massive_dimensions(np.concatenate([image, text]))
        return Selection(
            image=image,
            text=text,
            sample_image=picked.samples[0],
            sample_text=picked.samples[1],
            token_half_image=self._token_halves(len(image), "image"),
            token_half_text=self._token_halves(len(text), "text"),
            ranks=picked.ranks,
            dimensions=dimensions,
        )

    def _token_halves(self, n: int, side: str) -> Int[np.ndarray, " n"]:
        rng = random_streams.generator(self.seed, "choices", "token halves", side)
        return rng.permutation(np.arange(n) % 2)


def is_same(layer: Layer, text: str, before: str) -> bool:
    """Whether two levels of text select the same tokens, so that they are one choice."""
    return bool(np.array_equal(layer.masks(text, KEPT)[1], layer.masks(before, KEPT)[1]))
