"""Tables small enough to compute by hand: effects are given numbers, and so are deviations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from align.causes.simulated import few_points
from keygap.align.causes.tables import SAMPLE_COLUMNS

ODD = np.array([1.0, -1.0])  # deviations of consecutive samples: their mean is 0


def rows(point: str, values: Mapping[str, np.ndarray], variants: int = 2) -> pd.DataFrame:
    """Answers of one point; each value is an array of shape (samples,) or (samples, variants)."""
    n = len(values["hint_margin"])
    found: dict[str, Any] = {
        "point": point,
        "sample_id": np.repeat([f"s{number}" for number in range(n)], variants),
        "variant": np.tile([f"v{number}" for number in range(variants)], n),
    }
    defaults = {"correct": np.ones(n, bool), "margin": np.zeros(n), "hint_effect": np.zeros(n)}
    defaults |= {"image_attention": np.full(n, 0.2), "gap": np.full(n, 3.0)}
    for name, array in {**defaults, **values}.items():
        wide = array if array.ndim == 2 else np.repeat(array[:, None], variants, axis=1)
        found[name] = wide.ravel()
    margin = found["hint_margin"]
    found |= {"followed": margin > 0, "correct_conflict": margin <= 0}
    return pd.DataFrame(found)[list(SAMPLE_COLUMNS)]


def planned(
    direct: float, attention: float, n: int = 40, draws: int = 5, random: float = 0.1,
    deviation: float = 0.3, gap_moves: float = 1.0, attention_moves: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Answers in which the map has these effects at strength 1, and minus these at strength -1.

    The hint margin without an intervention follows a normal distribution over samples with mean -2
    and standard deviation 1. Every difference deviates from the effect by ``deviation``, up in one
    half of the samples and down in the other. A draw number d has the direct effect ``random`` (d -
    2).
    """
    points = pd.DataFrame(few_points(draws))
    base = -2 + norm.ppf((np.arange(n) + 0.5) / n)
    frames = []
    for number, point in enumerate(points.to_dict("records")):
        at, mass = point["strength"], point["mass"]
        if point["kind"] == "none":
            frames.append(rows(point["point"], {"hint_margin": base}))
            continue
        keys, share = mass in ("free", "held"), mass in ("free", "only")
        effect = at * (keys * direct + share * attention)
        if point["kind"] == "control":
            effect, keys, share = random * (point["draw"] - 2), False, False
        signs = np.resize(np.repeat(ODD, number % 3 + 1), n)  # differ between the modes
        values = {
            "hint_margin": base + effect + deviation * (signs - signs.mean()),
            "gap": 3.0 - 2.5 * at * keys * gap_moves + 0.1 * np.resize(ODD, n),
            "image_attention": 0.2 - 0.1 * at * share * attention_moves + 0.01 * np.resize(ODD, n),
        }
        frames.append(rows(point["point"], values))
    return pd.concat(frames, ignore_index=True), points
