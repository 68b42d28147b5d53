"""Made-up answers of a model whose mechanism is known.

The hint margin of a sample and phrasing is a base value, plus ``distance`` nats for each unit by
which its keys were brought nearer, plus ``attention`` nats for each unit of log-odds by which the
attention to its image fell, plus noise of the intervention. Samples differ in all of it. Steering
the keys changes the gap and, unless it is held, the attention; ``only`` changes attention alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keygap.align.causes.tables import (
    FRAME_COLUMNS,
    POINT_COLUMNS,
    SAMPLE_COLUMNS,
    CausesTable,
    point_rows,
)

LAYERS = 30
READING = (11, 12, 13, 14)
STRENGTHS = (-1.0, -0.5, 0.5, 1.0)
MODES = ("free", "held", "only")
VARIANTS = ("0 before newline", "0 after newline", "1 before newline", "1 after newline")
PHRASINGS = np.array([-0.6, -0.2, 0.2, 0.6])  # nats by which each one adds to the hint margin
THIRD = 0.03  # share of answers that are neither right nor suggested
BASELINES = {"attention-bias": 1.5, "contrast-decoding": -2.0, "prompt-warning": -0.4}
MECHANISMS = {  # nats per unit of gap, and per unit of log-odds of attention
    "distance": (1.5, 0.0),
    "attention": (0.0, 2.6),
    "neither": (0.0, 0.0),
    "both": (1.0, 1.8),
}


@dataclass(frozen=True)
class Model:
    """How answers come about.

    Attributes:
        distance: nats by which the hint margin grows as the gap falls by 1.
        attention: nats by which it grows as the log-odds of attention to the image fall by 1.
        slopes: standard deviation over samples of both effects, relative to them.
        noise: standard deviation of what any intervention does to a sample, nats.
        answer_noise: the same for each phrasing.
        spread: standard deviation of the hint margin over samples.
        generic: standard deviation over random directions of what each does to all samples.
        base: the mean hint margin without an intervention.
    """

    distance: float = 0.0
    attention: float = 0.0
    slopes: float = 0.25
    noise: float = 0.5
    answer_noise: float = 0.4
    spread: float = 1.6
    generic: float = 0.05
    base: float = -3.2


GAP = 3.0  # of unmoved keys
GAP_CLOSED = 2.6  # by which strength 1 lowers it; strength -1 raises it as much
ATTENTION_MOVED = 1.6  # log-odds by which strength 1 lowers the attention to the image


def point(
    kind: str = "none", name: str = "none", site: str = "", layers: str = "",
    strength: float = 0.0, mass: str = "", draw: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The columns of one point."""
    named = f"{kind}:{name}:{site}:{layers}:{strength:g}:{mass}:{draw}"
    values = (named, kind, name, site, layers, strength, mass, draw)
    return dict(zip(POINT_COLUMNS, values, strict=True))


def steered(
    strengths: Sequence[float] = STRENGTHS, name: str = "mean-shift", site: str = "k_proj",
    modes: Sequence[str] = MODES, kind: str = "map", draws: int = 1, layers: str = "all",
) -> list[dict[str, Any]]:  # fmt: skip
    """The points of a map or of random directions."""
    return [
        point(kind, name, site, layers, strength, mode, draw)
        for draw in range(draws)
        for strength in strengths
        for mode in modes
    ]


def few_points(draws: int = 5) -> list[dict[str, Any]]:
    """What a verdict needs: a map at -1 and 1, and random directions with attention held."""
    return [
        point(),
        *steered((-1.0, 1.0)),
        *steered((1.0,), "random-direction", modes=("held",), kind="control", draws=draws),
    ]


def all_points() -> list[dict[str, Any]]:
    """Points as an experiment has them."""
    return [
        point(),
        *steered(),
        *steered((-1.0, 1.0), "whitening"),
        *steered((1.0,), "mean-shift", layers="reading"),
        *steered((-1.0, 1.0), site="v_proj", modes=("free",)),
        *steered((1.0,), "random-direction", kind="control", draws=5),
        *(point("baseline", name, strength=1.0) for name in BASELINES),
    ]


def simulate(
    model: Model, points: Sequence[Mapping[str, Any]], n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Answers of n samples under every point.

    Returns:
        ``SAMPLE_COLUMNS``.
    """
    base = rng.normal(model.base, model.spread, n)
    gap = rng.normal(GAP, 0.2, n)
    odds = rng.normal(-1.3, 0.4, n)
    slopes = 1 + model.slopes * rng.normal(size=(2, n))
    unhinted = base - rng.normal(1.0, 0.4, n)  # suggested minus right, without the hint
    frames = []
    for each in points:
        closed, lowered = _doses(each, rng, n)
        moved = model.distance * slopes[0] * closed + model.attention * slopes[1] * lowered
        if each["kind"] != "none":
            moved = moved + rng.normal(0, model.noise, n)
        if each["kind"] == "control":
            moved = moved + rng.normal(0, model.generic)
        moved = moved + BASELINES.get(each["name"], 0.0)
        own = rng.normal(0, model.answer_noise, (n, len(VARIANTS)))
        margin = base[:, None] + PHRASINGS + moved[:, None] + own
        without = unhinted + 0.3 * moved
        shown = np.column_stack([_share(odds - lowered), gap - closed])
        frames.append(_answers(str(each["point"]), margin, without, shown, rng))
    return pd.concat(frames, ignore_index=True)[list(SAMPLE_COLUMNS)]


def _doses(each: Mapping[str, Any], rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """By how much a point closes the gap and lowers the attention to the image."""
    closed, lowered = np.zeros(n), np.zeros(n)
    strength, mass = each["strength"], each["mass"]
    if each["kind"] == "map" and each["site"] == "k_proj":
        part = 0.5 if each["name"] == "whitening" else 1.0
        if mass in ("free", "held"):
            closed = part * strength * rng.normal(GAP_CLOSED, 0.1, n)
        if mass in ("free", "only"):
            lowered = part * strength * rng.normal(ATTENTION_MOVED, 0.1, n)
    if each["kind"] == "control":
        closed = rng.normal(-0.2, 0.1, n)
        lowered = rng.normal(0.1, 0.1, n) if mass != "held" else lowered
    return closed, lowered


def _share(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def _answers(
    name: str, margin: np.ndarray, without: np.ndarray, shown: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """One row per sample and phrasing; a third answer is given now and then."""
    n, variants = margin.shape
    third = rng.random(margin.shape) < THIRD
    sample = np.repeat(np.arange(n), variants)
    return pd.DataFrame(
        {
            "point": name,
            "sample_id": [f"s{number:03d}" for number in sample],
            "variant": np.tile(VARIANTS[:variants], n),
            "correct": (without < 0)[sample],
            "followed": ((margin > 0) & ~third).ravel(),
            "correct_conflict": ((margin <= 0) & ~third).ravel(),
            "margin": -without[sample],
            "hint_margin": margin.ravel(),
            "hint_effect": (margin - without[:, None]).ravel(),
            "image_attention": shown[sample, 0],
            "gap": shown[sample, 1],
        }
    )


def causes_table(
    mechanism: str, n: int = 100, seed: int = 0, points: Sequence[Mapping[str, Any]] | None = None,
    model: str = "made:model", n_bootstraps: int = 200,
) -> CausesTable:  # fmt: skip
    """The whole table of an experiment on a model with a planted mechanism."""
    rng = np.random.default_rng(seed)
    chosen = list(points or all_points())
    distance, attention = MECHANISMS[mechanism]
    samples = simulate(Model(distance, attention), chosen, n, rng)
    frames = []
    for each in chosen:
        own = samples[samples["point"] == each["point"]]
        about = {"model": model, "benchmark": "easy-vqa", **each}
        frames.append(point_rows(own, about, n_bootstraps=n_bootstraps, seed=0))
        gap = own["gap"].mean()
        rows = []
        for layer in range(LAYERS):
            depth = 0.1 + 0.8 * np.sin(np.pi * (layer + 1) / (LAYERS + 1))
            value = 0.35 * depth * gap + rng.normal(0, 0.005)
            attended = own["image_attention"].mean() * (0.4 + depth)
            rows += [
                {**about, "measure": "mmd_squared", "layer": layer, "variant": "", "n": n,
                 "value": value, "ci_low": value * 0.93, "ci_high": value * 1.07},
                {**about, "measure": "image_attention", "layer": layer, "variant": "", "n": n,
                 "value": attended, "ci_low": attended * 0.95, "ci_high": attended * 1.05},
            ]  # fmt: skip
        frames.append(pd.DataFrame(rows, columns=list(FRAME_COLUMNS)))
    settings = {
        "model": model, "benchmark": "easy-vqa", "seed": 0, "n_bootstraps": n_bootstraps,
        "reading_layers": list(READING), "samples": n,
    }  # fmt: skip
    return CausesTable(pd.concat(frames, ignore_index=True), samples, settings)
