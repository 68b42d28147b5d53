"""Direct and mediated effects of moved keys: causal mediation analysis of the points.

Moving the keys changes their distance from the text keys, and with it the attention to the image.
Three points of the same map at the same strength separate the two. Write Y(keys, attention) for
an outcome with the keys moved (1) or not (0) and each query's attention to the image as moved keys
give it (1) or as unmoved keys give it (0). Then ``none`` is Y(0, 0), ``free`` Y(1, 1), ``held``
Y(1, 0) and ``only`` Y(0, 1), and in the terms of Pearl (2001, "Direct and indirect effects") and
Imai, Keele and Tingley (2010, "A general approach to causal mediation analysis"):

- total effect = free - none;
- direct effect of the keys = held - none, the natural direct effect;
- effect through attention = only - none, the pure natural indirect effect;
- interaction = total - direct - attention, which is 0 if the two effects add up.

From observational data, Y(1, 0) and Y(0, 1) can only be inferred under an assumption that cannot be
tested (sequential ignorability). Here both are run on the same samples. What is assumed instead:

- an intervention does what it says: ``held`` and ``only`` set the total attention to the image of
  each query and head, and change nothing else. The attention that unmoved keys give is that of the
  same layer in the same forward pass, whose hidden states earlier layers may have changed.
- samples are independent of each other. Phrasings of one sample need not be.

Keys enter a model through attention weights alone. The effect through attention is that of how much
attention the image gets in all; the direct effect is that of everything else that moved keys do,
which is how the same attention is spread among image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap.align.causes.paired import Estimate, Outcome
from keygap.align.causes.tables import MODES
from keygap.bias.intervals import CONFIDENCE

OUTCOMES = ("followed", "hint_margin", "margin")
EFFECTS = ("total", "direct", "attention", "interaction")
SHARE = "share"
GROUP = ("kind", "name", "site", "layers", "strength", "draw")  # of points that differ by mode
COLUMNS = (
    *GROUP, "outcome", "effect", "value", "ci_low", "ci_high", "std_error", "p_value", "n", "note",
)  # fmt: skip
ACROSS_COLUMNS = (
    "outcome", "predictor", "given", "value", "ci_low", "ci_high", "n_points", "n_samples", "note"
)  # fmt: skip
PREDICTORS = ("gap", "image_attention")
FEWEST_POINTS = 5  # with fewer, a partial correlation has no degree of freedom to spare
UNCERTAIN = "the interval of the total effect includes 0"


def modes_of(points: pd.DataFrame, kinds: Sequence[str] = ("map",)) -> list[dict[str, Any]]:
    """The interventions that were run in all three modes.

    Args:
        points: ``POINT_COLUMNS``.
        kinds: which kinds of points.

    Returns:
        For each a dictionary of ``GROUP``, and the ids of its points as ``free``, ``held`` and
        ``only``; in the order of the points.
    """
    found = []
    chosen = points[points["kind"].isin(list(kinds))]
    for key, own in chosen.groupby(list(GROUP), sort=False):
        ids = dict(zip(own["mass"], own["point"], strict=True))
        if set(MODES) <= ids.keys():
            found.append(dict(zip(GROUP, key, strict=True)) | {mode: ids[mode] for mode in MODES})
    return found


def unsteered(points: pd.DataFrame) -> str:
    """The id of the point without an intervention.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = points.loc[points["kind"] == "none", "point"].tolist()
    if len(found) != 1:
        raise ValueError(f"one point of kind none is needed, and there are {len(found)}")
    return str(found[0])


def contrasts_of(group: Mapping[str, Any], none: str) -> dict[str, dict[str, float]]:
    """The coefficients of the points in every effect of ``EFFECTS``.

    Args:
        group: of ``modes_of``.
        none: the point without an intervention.
    """
    free, held, only = (str(group[mode]) for mode in MODES)
    return {
        "total": {free: 1.0, none: -1.0},
        "direct": {held: 1.0, none: -1.0},
        "attention": {only: 1.0, none: -1.0},
        "interaction": {free: 1.0, held: -1.0, only: -1.0, none: 1.0},
    }


def mediation(
    samples: pd.DataFrame,
    points: pd.DataFrame,
    *,
    outcomes: Sequence[str] = OUTCOMES,
    kinds: Sequence[str] = ("map",),
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the effects of every map that was run free, held and only. O(B n) each.

    Effects are differences within each sample and phrasing, over the pairs that all four points
    have. Intervals are percentiles over resamplings of whole samples, the same ones for all effects
    and points. Where no sample differs from another, as when no answer changed, the resamplings
    have no width: the interval of ``followed`` then leaves room for the share of samples that could
    still differ (the upper Wilson bound of 0 of n).

    Args:
        samples: ``SAMPLE_COLUMNS`` of a ``CausesTable``.
        points: its ``POINT_COLUMNS``.
        outcomes: columns of ``samples``.
        kinds: which kinds of points; ``control`` gives the effects of random directions.
        n_bootstraps: resamplings of whole samples.
        seed: of the resamplings.

    Returns:
        One row per intervention, outcome and effect (``COLUMNS``). Effects are those of
        ``EFFECTS``, and ``share``: attention / total, the share of the total effect that changed
        attention alone produces. It is above 1 where the keys work against it, and withheld (NaN,
        with a ``note``) where the interval of the total effect includes 0. ``std_error`` and
        ``p_value`` are over samples (Student's t, not adjusted); ``n`` is the number of samples.

    Raises:
        ValueError: not exactly one point is of kind none.
    """
    groups = modes_of(points, kinds)
    if not groups:
        return pd.DataFrame(columns=list(COLUMNS))
    none = unsteered(points)
    wanted = {none, *(str(group[mode]) for group in groups for mode in MODES)}
    used = samples[samples["point"].isin(wanted)]
    rows = []
    for name in outcomes:
        outcome = Outcome.of(used, name, n_bootstraps, seed)
        for group in groups:
            found = outcome.estimates(contrasts_of(group, none))
            about = {column: group[column] for column in GROUP} | {"outcome": name}
            rows += [about | _row(effect, each) for effect, each in found.items()]
            rows.append(about | _share(found["attention"], found["total"]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(effect: str, found: Estimate) -> dict[str, Any]:
    return {
        "effect": effect, "value": found.value, "ci_low": found.low, "ci_high": found.high,
        "std_error": found.std_error, "p_value": found.p_value, "n": found.n, "note": "",
    }  # fmt: skip


def _share(part: Estimate, total: Estimate) -> dict[str, Any]:
    """The share of a part in the total, with its interval, or why there is none."""
    nothing = {"std_error": math.nan, "p_value": math.nan, "n": total.n}
    row = {"effect": SHARE, "value": math.nan, "ci_low": math.nan, "ci_high": math.nan}
    if not (total.low > 0 or total.high < 0):
        return row | nothing | {"note": UNCERTAIN}
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = part.drawn / total.drawn
    low, high = _ends(drawn)
    row |= {"value": part.value / total.value, "ci_low": low, "ci_high": high}
    return row | nothing | {"note": ""}


def _ends(drawn: Float[np.ndarray, " B"]) -> tuple[float, float]:
    """The 95 % percentile interval; NaN if no resampling has a value."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def across_points(
    samples: pd.DataFrame,
    points: pd.DataFrame,
    *,
    outcomes: Sequence[str] = ("followed", "hint_margin"),
    kinds: Sequence[str] = ("none", "map", "control"),
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Describe how outcomes go with the gap and with attention to the image, over points.

    Each point is one observation: the means of its outcome, gap and attention over samples. This
    describes the points that were run and does not test a cause: it weighs all points alike,
    however they were chosen, and gap and attention move together in most of them. The test is
    ``mediation``.

    Args:
        samples: ``SAMPLE_COLUMNS`` of a ``CausesTable``.
        points: its ``POINT_COLUMNS``.
        outcomes: columns of ``samples``.
        kinds: which kinds of points count.
        n_bootstraps: resamplings of whole samples. The points stay as they are.
        seed: of the resamplings.

    Returns:
        One row per outcome and predictor (``gap``, ``image_attention``), and for each one row with
        Pearson's correlation (``given`` is empty) and one with the partial correlation given the
        other predictor. NaN with a ``note`` where fewer than five points have all three, or where
        the predictors determine each other.
    """
    chosen = points.loc[points["kind"].isin(list(kinds)), "point"].tolist()
    used = samples[samples["point"].isin(chosen)]
    n_samples = used["sample_id"].nunique()
    means = {
        name: Outcome.of(used, name, n_bootstraps, seed).means()
        for name in dict.fromkeys((*outcomes, *PREDICTORS))
    }
    rows = []
    for outcome in outcomes:
        names = (outcome, *PREDICTORS)
        known = ~np.isnan(np.stack([means[name][0] for name in names])).any(0)
        count = int(known.sum())
        about = {"outcome": outcome, "n_points": count, "n_samples": n_samples, "note": ""}
        if count < FEWEST_POINTS:
            note = f"{count} points have all three, and {FEWEST_POINTS} are needed"
            correlations = dict.fromkeys(_PAIRS, (math.nan, math.nan, math.nan))
        else:
            note = ""
            value = _correlations([means[name][0][None, known] for name in names])
            drawn = _correlations([means[name][1][:, known] for name in names])
            correlations = {key: (float(value[key][0]), *_ends(drawn[key])) for key in _PAIRS}
        for (predictor, given), (estimate, low, high) in correlations.items():
            why = note or ("" if not math.isnan(estimate) else "a quantity does not vary by itself")
            rows.append(
                about
                | {"predictor": predictor, "given": given, "value": estimate, "note": why}
                | {"ci_low": low, "ci_high": high}
            )
    return pd.DataFrame(rows, columns=list(ACROSS_COLUMNS))


_PAIRS = (("gap", ""), ("gap", "image_attention"), ("image_attention", ""),
          ("image_attention", "gap"))  # fmt: skip
_LEAST = 1e-9  # of a variance that is left, relative to the whole


def _correlations(
    values: Sequence[Float[np.ndarray, "B points"]],
) -> dict[tuple[str, str], Float[np.ndarray, " B"]]:
    """Pearson and partial correlations of the outcome with both predictors, by ``_PAIRS``."""
    outcome, gap, attention = values
    with_gap, with_attention = _pearson(outcome, gap), _pearson(outcome, attention)
    between = _pearson(gap, attention)
    return {
        ("gap", ""): with_gap,
        ("gap", "image_attention"): _partial(with_gap, with_attention, between),
        ("image_attention", ""): with_attention,
        ("image_attention", "gap"): _partial(with_attention, with_gap, between),
    }


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (each - each.mean(-1, keepdims=True) for each in (x, y))
    spread = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, (x * y).sum(-1) / spread, np.nan)


def _partial(xy: np.ndarray, yz: np.ndarray, xz: np.ndarray) -> np.ndarray:
    """The correlation of x and y with z held fixed, from the three correlations."""
    left = (1 - yz**2) * (1 - xz**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left > _LEAST, (xy - xz * yz) / np.sqrt(left), np.nan)
