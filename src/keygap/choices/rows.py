"""From the numbers of a store to one row for each choice.

A row is a level of every factor. Means over heads and over layers are means of the number that the
row reports, and a ratio is that of the means.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap.choices.intervals import LEVEL, half_width, jackknife_error
from keygap.choices.levels import (
    EACH,
    JSD_SCALES,
    KERNELS,
    MEAN,
    MMD_SCALES,
    TOGETHER,
    Plan,
)
from keygap.choices.measuring import Coordinates, Measure, SiteNumbers
from keygap.choices.tables import row_ids
from keygap.gap.core.calibration import LN2


@dataclass(frozen=True)
class SiteRows:
    """The rows of one site of one store.

    Attributes:
        frame: one row for each choice.
        draws: image-text, image-image and text-text of every row, observed and without each group.
    """

    frame: pd.DataFrame
    draws: Float[np.ndarray, "rows 3 B"]


def rows_of(
    found: SiteNumbers, key: Mapping[str, Any], layers: Mapping[str, Sequence[int]], plan: Plan
) -> SiteRows:
    """Build the rows of a site.

    Args:
        found: the numbers.
        key: model, connector, benchmark and site.
        layers: absolute indices of every level of ``layer``.
        plan: the levels that were tried.
    """
    rows, observed, draws = [], [], []
    measures = list(dict.fromkeys(measure for _, measure in found.numbers))
    texts = [name for name in plan.text if any(place.text == name for place in found.n_samples)]
    for layer, head, text, outliers, tokens, space in itertools.product(
        layers, _heads(found, plan), texts, plan.outliers, plan.tokens, plan.spaces
    ):
        members = [
            Coordinates(index, one, text, outliers, tokens, space)
            for index in layers[layer]
            for one in head[1]
        ]
        if not all(member in found.n_samples for member in members):
            continue
        place = {
            "layer": layer, "heads": head[0], "text": text, "outliers": outliers,
            "tokens": tokens, "space": space,
        }  # fmt: skip
        n_samples = found.n_samples[members[0]]
        sizes = {"n_samples": n_samples, "n_image": tokens, "n_text": tokens}
        weight = 1.0 / found.heads if head[0] not in (TOGETHER, MEAN) else 1.0
        for measure in measures:
            if not all((member, measure) in found.numbers for member in members):
                continue
            numbers = np.stack([found.numbers[member, measure] for member in members])
            for levels, values in _scales(measure, numbers):
                rows.append({**key, **place, **levels, **sizes, "weight": weight})
                mean = values.mean(0)
                observed.append(mean[:, 0])
                draws.append(mean.astype(np.float32))
    if not rows:
        return SiteRows(pd.DataFrame(), np.zeros((0, 3, 1), dtype=np.float32))
    stacked = np.stack(draws)
    frame = pd.DataFrame(rows).assign(**_columns(np.stack(observed), stacked))
    frame.insert(0, "row", row_ids(frame))
    return SiteRows(frame, stacked)


def scaled(values: Float[np.ndarray, ...], scale: str) -> Float[np.ndarray, ...]:
    """MMD squared or JSD in nats on the scale of a row.

    Args:
        values: MMD squared, or JSD in nats.
        scale: ``mmd`` (root, 0 where negative), ``mmd2``, ``nats``, ``bits``, ``root`` (of nats).
    """
    if scale in ("mmd", "root"):
        return np.sqrt(np.clip(values, 0.0, None))
    return values / LN2 if scale == "bits" else values


def ratio_of(values: Float[np.ndarray, "3 ..."]) -> Float[np.ndarray, ...]:
    """Cross-modal value over the mean of both intra-modal ones; infinite if that is not above 0."""
    within = 0.5 * (values[1] + values[2])
    return np.divide(values[0], within, out=np.full_like(within, np.inf), where=within > 0)


def _heads(found: SiteNumbers, plan: Plan) -> list[tuple[str, list[int | None]]]:
    """Levels of ``heads`` and what each is a mean of."""
    if found.heads == 1:
        return [(TOGETHER, [None])]
    every: list[int | None] = [*range(found.heads)]
    levels: list[tuple[str, list[int | None]]] = []
    for name in plan.heads:
        if name == TOGETHER:
            levels.append((name, [None]))
        elif name == MEAN:
            levels.append((name, every))
        elif name == EACH:
            levels += [(str(head), [head]) for head in every]
    return levels


def _scales(
    measure: Measure, numbers: Float[np.ndarray, "members 3 B"]
) -> Iterator[tuple[dict[str, str], Float[np.ndarray, "members 3 B"]]]:
    unit, estimator, bias = measure
    is_mmd = estimator in KERNELS
    for scale in MMD_SCALES if is_mmd else JSD_SCALES:
        levels = {
            "unit": unit, "measure": "mmd" if is_mmd else "jsd", "estimator": estimator,
            "bias": bias, "scale": scale,
        }  # fmt: skip
        yield levels, scaled(numbers, scale)


def _columns(
    observed: Float[np.ndarray, "rows 3"], draws: Float[np.ndarray, "rows 3 1+G"]
) -> dict[str, Float[np.ndarray, " rows"]]:
    """The columns of numbers; the interval of a ratio is on its log scale, where it is not skewed.

    A ratio has no interval where it is infinite or not positive with some group left out.
    """
    half = half_width(draws.shape[2] - 1, LEVEL)
    width = half * jackknife_error(draws[:, 0])
    ratio, ratios = ratio_of(observed.T), ratio_of(draws.transpose(1, 0, 2).astype(np.float64))
    usable = (np.isfinite(ratios) & (ratios > 0)).all(1)
    spread = np.full(len(ratio), np.nan)
    spread[usable] = np.exp(half * jackknife_error(np.log(ratios[usable])))
    return {
        "cross": observed[:, 0],
        "cross_low": observed[:, 0] - width,
        "cross_high": observed[:, 0] + width,
        "image_image": observed[:, 1],
        "text_text": observed[:, 2],
        "ratio": ratio,
        "ratio_low": ratio / spread,
        "ratio_high": ratio * spread,
    }
