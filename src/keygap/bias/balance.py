"""The balance point: at which difference of entropies image and text weigh the same.

The probability of following the text is a logistic function of how much more uncertain the image
alone leaves the model than the text alone does (arXiv 2511.02243):
``P(text) = 1 / (1 + exp(-slope (x - point)))`` with ``x = H(image alone) - H(text alone)``. Where
image and text are equally uncertain, a model without a preference follows each half of the time,
and its point is 0. A negative point is a preference for the text.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from keygap import random_streams
from keygap.benchmarks.scoring import normalised
from keygap.bias.condition import Probe
from keygap.bias.intervals import CONFIDENCE
from keygap.display import as_html, between, brief
from keygap.errors import UserError

FEWEST = 10  # cases that follow the image, and that follow the text


@dataclass(frozen=True)
class Balance:
    """The fitted balance of image and text.

    Attributes:
        point: x at which both are followed equally often, in nats; NaN where it cannot be fitted.
        low: lower end of its 95 % interval over samples; minus infinity if too many resamplings
            have no point.
        high: upper end of it.
        slope: of the log-odds, per nat.
        n: cases in which the answers to image alone and text alone differ, and the answer to both
            is one of them.
        text: how many of these follow the text.
        note: why there is no point; empty if there is one.
    """

    point: float
    low: float
    high: float
    slope: float
    n: int
    text: int
    note: str = ""

    def __repr__(self) -> str:
        return brief(f"Balance({self})")

    def _repr_html_(self) -> str:
        row = {
            "point (95 % interval)": between(self.point, self.low, self.high),
            "slope": self.slope,
            "n": self.n,
            "text": self.text,
        }
        caption = (
            "Balance of image and text. point: the difference in entropy (image alone minus text "
            "alone, in nats) at which both are followed equally often, with a bootstrap interval "
            "over samples (below 0: a preference for the text); slope: of the log-odds per nat; "
            "text: how many of the n answers follow the text."
        )
        return as_html(caption, pd.DataFrame([row]), [self.note] if self.note else [])

    def __str__(self) -> str:
        """The balance point in one line."""
        if self.note:
            return f"no balance point: {self.note}"
        return (
            f"balance point {self.point:.2f} nats ({self.low:.2f} to {self.high:.2f}), from "
            f"{self.n} answers of which {self.text} follow the text"
        )


def balance_point(
    difference: Float[np.ndarray, " n"],
    follows_text: Bool[np.ndarray, " n"],
    sample_ids: np.ndarray,
    *,
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> Balance:
    """Fit the balance point.

    Args:
        difference: entropy of the answer to the image alone minus that to the text alone, in nats.
        follows_text: whether the answer to both is that to the text alone.
        sample_ids: the sample of each case.
        n_bootstraps: resamplings of whole samples.
        seed: of the resamplings.

    Returns:
        The balance point with its interval over samples, and the slope.

    Raises:
        UserError: the arrays have different lengths.
    """
    x, y = np.asarray(difference, float), np.asarray(follows_text, bool)
    ids = np.asarray(sample_ids, dtype=object)
    if not len(x) == len(y) == len(ids):
        raise UserError(f"{len(x)} differences, {len(y)} answers and {len(ids)} sample_ids differ")
    n, text = len(y), int(y.sum())
    if min(text, n - text) < FEWEST:
        why = f"{text} of {n} answers follow the text, and {FEWEST} of each kind are needed"
        return Balance(math.nan, math.nan, math.nan, math.nan, n, text, why)
    slope, point = _fitted(x, y)
    if slope <= 0:
        why = "the text is not followed more often where the image is less certain"
        return Balance(math.nan, math.nan, math.nan, slope, n, text, why)
    rows = pd.Series(np.arange(n)).groupby(ids, sort=True).apply(np.asarray).tolist()
    rng = random_streams.generator(seed, "bias", "balance")
    points = []
    for _ in range(n_bootstraps):
        drawn = np.concatenate([rows[each] for each in rng.integers(len(rows), size=len(rows))])
        points.append(_resampled(x[drawn], y[drawn]))
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(points, ends, method="inverted_cdf")
    return Balance(point, float(low), float(high), slope, n, text)


def balance_of(samples: pd.DataFrame, probe: Probe, n_bootstraps: int, seed: int) -> dict[str, Any]:
    """The balance point of the answers of a probe, as ``Probe.analyse``.

    Args:
        samples: ``BiasTable.samples``.
        probe: the probe; its conditions that name an image-only and a text-only one are used.
        n_bootstraps: resamplings of whole samples.
        seed: of the resamplings.
    """
    own = samples[samples["probe"] == probe.name]
    found = []
    for each in probe.conditions:
        if not (each.image_only and each.text_only):
            continue
        here = own[(own["condition"] == each.name) & (own["variant"] == each.variant)]
        for side in ("image_only", "text_only"):
            other = own[own["condition"] == getattr(each, side)]
            if (other["variant"] == each.variant).any():
                other = other[other["variant"] == each.variant]
            chosen = other[["sample_id", "chosen", "entropy"]]
            here = here.merge(chosen, on="sample_id", suffixes=("", f"_{side}"))
        found.append(here)
    cases = pd.concat(found, ignore_index=True)
    answers = [cases[name].map(normalised) for name in _ANSWERS]
    image, together, text = answers
    decided = (image != text) & ((together == image) | (together == text))
    decided &= cases[["entropy_image_only", "entropy_text_only"]].notna().all(axis=1)
    cases, follows = cases[decided], (together == text)[decided]
    difference = cases["entropy_image_only"] - cases["entropy_text_only"]
    balance = balance_point(
        difference.to_numpy(float),
        follows.to_numpy(bool),
        cases["sample_id"].to_numpy(),
        n_bootstraps=n_bootstraps,
        seed=seed,
    )
    return {**asdict(balance), "summary": str(balance)}


_ANSWERS = ("chosen_image_only", "chosen", "chosen_text_only")


def _fitted(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and balance point of a logistic regression, practically without a penalty."""
    from sklearn.linear_model import LogisticRegression  # slow to import, and a report needs none

    scale = float(x.std()) or 1.0
    model = LogisticRegression(C=1e4, max_iter=1000).fit(x[:, None] / scale, y)
    slope = float(model.coef_[0, 0]) / scale
    return slope, -float(model.intercept_[0]) / slope if slope else math.nan


def _resampled(x: np.ndarray, y: np.ndarray) -> float:
    """The point of a resampling.

    Without one it is minus infinity if most answers follow the text, otherwise plus infinity.
    """
    if y.all():
        return -math.inf
    if not y.any():
        return math.inf
    slope, point = _fitted(x, y)
    if slope > 0:
        return point
    return -math.inf if y.mean() > 0.5 else math.inf
