"""How many tokens and samples of a large comparison are used.

A kernel between all tokens of two sides costs the square of their number, and a run may have a
million samples. Samples are independent and tokens of one sample are not, so tokens are given up
first. Every sample keeps one token, and the same share of the others, so that long samples keep
their weight in the coordinates. Cost and memory depend on the tokens of both sides together, so
they share one limit: if one side needs less than half, the other may use the rest. What is used is
drawn at random with the given seed, and the numbers of tokens and samples are in every row of the
tables.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from keygap import random_streams

MAX_SAMPLES = 5_000  # of each side
MAX_TOKENS = 20_000  # of both sides together, so that each of these samples has some on each


@dataclass(frozen=True)
class Drawn:
    """The tokens of both sides that are used.

    Attributes:
        masks: which tokens they are, for each side.
        limited: what the limits leave of both sides, in words; empty if nothing is left out.
    """

    masks: tuple[Bool[np.ndarray, " n"], ...]
    limited: str


def drawn_tokens(
    sample: pd.Series,
    masks: Sequence[Bool[np.ndarray, " n"]],
    ids: Sequence[Collection[str]],
    tokens_per_sample: int | None,
    seed: int,
) -> Drawn:
    """Draw the tokens of both sides.

    Args:
        sample: the sample of each token.
        masks: the tokens of each side.
        ids: the samples of each side.
        tokens_per_sample: at most this many tokens of a sample; None: everything is used.
        seed: of the draw.
    """
    if tokens_per_sample is None:
        own = (mask & sample.isin(names).to_numpy() for mask, names in zip(masks, ids, strict=True))
        return Drawn(tuple(own), "")
    rng = random_streams.generator(seed, "tokens of a sample")
    kept = [drawn_samples(names, seed, MAX_SAMPLES) for names in ids]
    usable = []
    for mask, names in zip(masks, kept, strict=True):
        rows = rng.permutation(np.flatnonzero(mask))
        rows = rows[sample.iloc[rows].isin(names).to_numpy()]
        usable.append(_in_turn(sample, rows, tokens_per_sample))
    drawn, lines = [], []
    for mask, rows, other, names in zip(masks, usable, reversed(usable), kept, strict=True):
        used = rows[: max(MAX_TOKENS // 2, MAX_TOKENS - len(other))]
        thin = np.zeros(len(mask), dtype=bool)
        thin[used] = True
        drawn.append(thin)
        lines.append(f"{len(used):,} tokens of {len(names):,} samples")
    limited = sum(map(len, usable)) > MAX_TOKENS or list(map(len, kept)) != list(map(len, ids))
    return Drawn(tuple(drawn), " and ".join(lines) if limited else "")


def _in_turn(
    sample: pd.Series, rows: Int[np.ndarray, " k"], tokens_per_sample: int
) -> Int[np.ndarray, " l"]:
    """The rows that may be used; every beginning of them has the same share of each sample.

    Args:
        sample: the sample of each token.
        rows: tokens in random order.
        tokens_per_sample: at most this many of a sample may be used.
    """
    of_sample = sample.iloc[rows].groupby(sample, observed=True)
    turn = of_sample.cumcount().to_numpy()
    size = of_sample.transform("size").to_numpy().clip(max=tokens_per_sample)
    few = turn < tokens_per_sample
    return rows[few][np.argsort((turn / size)[few], kind="stable")]


def drawn_samples(names: Collection[str], seed: int, most: int) -> Collection[str]:
    """Draw samples, the same for both sides of one contrast.

    Args:
        names: ids of the samples.
        seed: of the draw.
        most: how many are kept at most.
    """
    if len(names) <= most:
        return names
    rng = random_streams.generator(seed, "samples of a comparison")
    return set(rng.permutation(sorted(map(str, names)))[:most])
