"""A made-up specification curve with the columns, levels and size of a real one.

The logarithm of every number is a sum of an effect of each level and noise. Unbiased estimates of
two halves are as often below 0 as above at a large sample, which makes their ratio infinite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keygap.choices.tables import (
    COLUMNS,
    FACTORS,
    STATEMENT_COLUMNS,
    VARIANCE_COLUMNS,
    ChoicesTable,
    row_ids,
)

MODELS = {"micro:linear": 0.35, "micro:mlp": 0.1, "micro:qformer": -0.45}
SOURCE = "arXiv 2510.26721 v1"
PUBLISHED = {"source": SOURCE, "cross": 0.408, "intra": 0.012, "jsd": 0.3}
SHARED: dict[
    str, Mapping[Any, float]
] = {  # the levels of both measures, with what each adds to a logarithm
    "layer": {"first": -0.5, "middle": 0.1, "last": 0.3, "mean": 0.0},
    "heads": {"together": 0.2, "mean": 0.0, "0": -0.3, "1": 0.1, "2": 0.4},
    "text": {"question": 0.1, "user": 0.0, "all": -0.2},
    "outliers": {"kept": 0.2, "without_sinks": 0.0, "without_massive": -0.1},
    "tokens": {200: -0.6, 1000: 0.0, 5000: 0.6},
    "unit": {"sample": -0.3, "token": 0.3},
    "space": {"raw": 0.2, "standardised": 0.0, "pca_50": 0.1},
}
OWN: dict[str, dict[str, Mapping[Any, float]]] = {
    "mmd": {
        "estimator": {
            "gaussian_median": 0.0, "gaussian_grid": 0.1, "gaussian_1/d": -0.2,
            "gaussian_1": -2.5, "linear": 0.6, "energy": 0.3,
        },
        "bias": {"unbiased": 0.8, "biased": -0.8},
        "scale": {"mmd": -0.6, "mmd2": 0.6},
    },
    "jsd": {
        "estimator": {
            "histogram_10": -1.2, "histogram_30": -1.1, "histogram_100": -0.9, "joint_2_10": -0.3,
            "joint_2_100": 0.1, "joint_50_10": 0.3, "neighbours": 0.0, "classifier": -0.1,
        },
        "bias": {"": 0.0},
        "scale": {"nats": 0.0, "bits": 0.37, "root": 0.5},
    },
}  # fmt: skip
SIZES = {"mmd": 6000, "jsd": 2000}
RULES = [
    {"rule": "unit token with a bootstrap over tokens", "reason": "tokens are not independent"},
    {"rule": "a joint histogram of 50 dimensions in raw space", "reason": "it has no 50 axes"},
]
NOTES = ["micro-qformer-easy-vqa: 5000 tokens are more than the 3200 image tokens of the store"]


def choices_table(
    n: Mapping[str, int] = SIZES,
    models: Mapping[str, float] = MODELS,
    published: Mapping[str, Any] | None = PUBLISHED,
    seed: int = 0,
) -> ChoicesTable:
    """Simulate a table.

    Args:
        n: the number of choices of each measure, drawn from all combinations.
        models: what each model adds to the logarithm of its numbers.
        published: the published numbers.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    frames = [_measured(measure, number, models, rng) for measure, number in n.items()]
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "row", row_ids(frame))
    settings = {
        "levels": {name: list(levels) for name, levels in SHARED.items()},
        "n_groups": 50, "seed": seed,
        "sources": [f"{model.replace(':', '-')}-easy-vqa" for model in models],
        "rules": RULES, "notes": NOTES, "published": published and dict(published),
    }  # fmt: skip
    frame = frame[list(COLUMNS)]
    return ChoicesTable(frame, statements_of(frame), variance_of(frame, rng), settings)


def _measured(
    measure: str, n: int, models: Mapping[str, float], rng: np.random.Generator
) -> pd.DataFrame:
    effects = {"model": models, **SHARED, **OWN[measure]}
    size = math.prod(len(levels) for levels in effects.values())
    chosen = set(rng.choice(size, min(n, size), replace=False).tolist())
    combinations = itertools.product(*effects.values())
    levels = [each for number, each in enumerate(combinations) if number in chosen]
    frame = pd.DataFrame(levels, columns=list(effects))
    total = np.sum([frame[name].map(effect) for name, effect in effects.items()], axis=0)
    frame["measure"], frame["benchmark"], frame["site"] = measure, "easy-vqa", "k_proj"
    frame["connector"] = frame["model"].str.rpartition(":")[2]
    values = _values(measure, total, frame["bias"].to_numpy() == "unbiased", rng)
    frame = frame.assign(n_samples=200, n_image=frame["tokens"], n_text=frame["tokens"])
    each = ~frame["heads"].isin(["together", "mean"])
    frame["weight"] = np.where(each, 1 / 3, 1.0)
    return pd.concat([frame, pd.DataFrame(values)], axis=1)


def _values(
    measure: str, total: np.ndarray, unbiased: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The columns of numbers, from the sum of the effects of every row."""
    n = len(total)
    noise = rng.normal(0, 0.25, n)
    width = rng.uniform(0.1, 0.4, n)
    if measure == "jsd":
        cross = 0.35 * np.exp(0.5 * (total + noise))
        cross = cross / (1 + cross)
        intra = cross * rng.uniform(0.01, 0.4, (2, n))
    else:
        cross = 0.3 * np.exp(0.3 * (total + noise) + rng.normal(0, 0.7, n))
        intra = cross * 10 ** (-1.4 - 0.5 * (total + noise)) * rng.uniform(0.7, 1.3, (2, n))
        below = unbiased & (rng.random(n) < 0.2)
        intra = np.where(below, -np.abs(intra), intra)
    mean = intra.mean(axis=0)
    with np.errstate(divide="ignore"):
        ratio = np.where(mean > 0, cross / np.where(mean > 0, mean, 1), np.inf)
    return {
        "cross": cross, "cross_low": cross * np.exp(-width), "cross_high": cross * np.exp(width),
        "image_image": intra[0], "text_text": intra[1],
        "ratio": ratio, "ratio_low": ratio * np.exp(-2 * width),
        "ratio_high": np.where(width > 0.37, np.inf, ratio * np.exp(2 * width)),
    }  # fmt: skip


def statements_of(frame: pd.DataFrame, half_width: float = 0.02) -> pd.DataFrame:
    """The shares of choices in which statements hold, with made-up intervals."""
    tests = {
        ("separated", "mmd"): ("the cross-modal MMD is above both intra-modal values", _separated),
        ("tenfold", "mmd"): ("the ratio is at least 10", lambda own: own["ratio"] >= 10),
        ("published_ratio", "mmd"): (
            "the ratio is at least the published 34", lambda own: own["ratio"] >= 34,
        ),
        ("orders_of_magnitude", "mmd"): (
            "the ratio is at least 100", lambda own: own["ratio"] >= 100,
        ),
        ("separated", "jsd"): ("the cross-modal JSD is above both intra-modal values", _separated),
        ("above_0.3", "jsd"): ("the JSD is above 0.3", lambda own: own["cross"] > 0.3),
    }  # fmt: skip
    rows = []
    for (statement, measure), (what, holds) in tests.items():
        for model in frame["model"].unique():
            own = frame[(frame["measure"] == measure) & (frame["model"] == model)]
            if own.empty:
                continue
            share = float(holds(own).mean())
            ends = (max(0.0, share - half_width), min(1.0, share + half_width))
            where = (model, "easy-vqa", "k_proj")
            rows.append((statement, what, measure, *where, share, *ends, len(own)))
    return pd.DataFrame(rows, columns=list(STATEMENT_COLUMNS))


def _separated(own: pd.DataFrame) -> pd.Series:
    return own["cross"] > own[["image_image", "text_text"]].max(axis=1)


def variance_of(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Made-up shares of the variance: of a factor with one level they are 0."""
    numbers = {"log10 ratio": "mmd", "MMD by a Gaussian kernel": "mmd", "JSD": "jsd"}
    rows = []
    for number, measure in numbers.items():
        own = frame[frame["measure"] == measure]
        if own.empty:
            continue
        factors: Sequence[str] = ("model", *FACTORS)
        varied = np.array([own[name].nunique() > 1 for name in factors])
        alone = rng.dirichlet(np.ones(len(factors))) * varied * 0.8
        for name, share in zip(factors, alone, strict=True):
            rows.append((number, measure, name, share, share * 1.2, len(own)))
    return pd.DataFrame(rows, columns=list(VARIANCE_COLUMNS))
