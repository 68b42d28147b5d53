"""In what share of the choices does each statement of the paper hold?

arXiv 2510.26721 v1 says that image and text keys are separated, that their MMD is orders of
magnitude above that inside a modality (it prints 0.408 and about 0.012), that a Jensen-Shannon
divergence above 0.3 is separation, and that one model is above the other. Each statement is asked
of every choice. Single heads count together as one choice, so a row of one of H heads has weight
1/H.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from keygap.choices.intervals import LEVEL, half_width, jackknife_error
from keygap.choices.levels import FACTORS

STATEMENT_COLUMNS = (
    "statement", "what", "measure", "model", "benchmark", "site", "share", "share_low",
    "share_high", "n_choices",
)  # fmt: skip
PUBLISHED_CROSS, PUBLISHED_INTRA, PUBLISHED_JSD = 0.408, 0.012, 0.3
PUBLISHED_RATIO = PUBLISHED_CROSS / PUBLISHED_INTRA

Draws = Float[np.ndarray, "rows 3 B"]
Holds = Callable[[Draws], Bool[np.ndarray, "rows B"]]


@dataclass(frozen=True)
class Statement:
    """One statement about the numbers of a single choice.

    Attributes:
        name: its value in the column ``statement``.
        what: one line that says it.
        measures: the measures that it is about.
        holds: whether it holds, for every row and draw.
    """

    name: str
    what: str
    measures: tuple[str, ...]
    holds: Holds


def _at_least(times: float) -> Holds:
    def holds(draws: Draws) -> Bool[np.ndarray, "rows B"]:
        within = 0.5 * (draws[:, 1] + draws[:, 2])
        return (draws[:, 0] > 0) & (draws[:, 0] >= times * within)

    return holds


STATEMENTS = (
    Statement(
        "separated",
        "image and text are farther apart than two halves of either modality",
        ("mmd", "jsd"),
        lambda draws: draws[:, 0] > np.maximum(draws[:, 1], draws[:, 2]),
    ),
    Statement("tenfold", "at least 10 times the mean of both halves", ("mmd",), _at_least(10.0)),
    Statement(
        "published_ratio",
        f"at least {PUBLISHED_RATIO:.0f} times the mean of both halves, the published ratio",
        ("mmd",),
        _at_least(PUBLISHED_RATIO),
    ),
    Statement(
        "orders_of_magnitude",
        "at least 100 times the mean of both halves",
        ("mmd",),
        _at_least(100.0),
    ),
    Statement(
        "above_0.3",
        "the JSD is above 0.3, which the paper calls separated",
        ("jsd",),
        lambda draws: draws[:, 0] > PUBLISHED_JSD,
    ),
)


def statements_of(frame: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """The share of choices in which each statement holds, for every model, benchmark and site.

    Args:
        frame: rows of ``choices.parquet``.
        draws: their values, observed (0) and without each group of samples.

    Returns:
        Rows of ``STATEMENT_COLUMNS``, models in the order of ``frame``.
    """
    rows = []
    for (benchmark, site), part in frame.groupby(["benchmark", "site"], sort=False):
        where = {"benchmark": benchmark, "site": site}
        for measure, model in itertools.product(("mmd", "jsd"), part["model"].unique()):
            own = part[(part["model"] == model) & (part["measure"] == measure)]
            if own.empty:
                continue
            for statement in STATEMENTS:
                if measure not in statement.measures:
                    continue
                key = {"statement": statement.name, "what": statement.what, "model": model}
                holds = statement.holds(draws[own.index])
                rows.append({**where, **key, "measure": measure, **_share(holds, own["weight"])})
            rows += [
                {**where, **row, "measure": measure, "model": model} for row in _layers(own, draws)
            ]
        rows += [{**where, **row} for row in _models(part, draws)]
    return pd.DataFrame(rows, columns=list(STATEMENT_COLUMNS))


def _layers(own: pd.DataFrame, draws: Draws) -> list[dict[str, Any]]:
    """How often a deeper layer has the larger cross-modal value."""
    known = [name for name in ("first", "middle", "last") if (own["layer"] == name).any()]
    rows = []
    for shallow, deep in itertools.combinations(known, 2):
        pairs = _paired(own[own["layer"] == deep], own[own["layer"] == shallow], "layer")
        if len(pairs[0]):
            what = f"the {deep} layer is above the {shallow} layer"
            rows.append({"statement": f"{deep} > {shallow}", "what": what, **_above(pairs, draws)})
    return rows


def _models(part: pd.DataFrame, draws: Draws) -> list[dict[str, Any]]:
    """How often a model is above each of those that are listed after it."""
    rows = []
    for measure in ("mmd", "jsd"):
        of_measure = part[part["measure"] == measure]
        for first, second in itertools.combinations(of_measure["model"].unique(), 2):
            one, other = (of_measure[of_measure["model"] == name] for name in (first, second))
            shared = one["heads"].isin(["together", "mean"])  # a head of one is none of the other
            pairs = _paired(one[shared], other, "model")
            if len(pairs[0]):
                rows.append({
                    "statement": "order",
                    "what": "the first model is above the second",
                    "model": f"{first} > {second}",
                    "measure": measure,
                    **_above(pairs, draws),
                })  # fmt: skip
    return rows


Pairs = tuple[np.ndarray, np.ndarray, pd.Series]


def _paired(one: pd.DataFrame, other: pd.DataFrame, apart: str) -> Pairs:
    """Rows of two frames that agree in every level but one, and their weights."""
    keys = [name for name in FACTORS if name != apart]
    joined = (
        one[[*keys, "weight"]]
        .reset_index(names="row_one")
        .merge(other[keys].reset_index(names="row_other"), on=keys)
    )
    return joined["row_one"].to_numpy(), joined["row_other"].to_numpy(), joined["weight"]


def _above(pairs: Pairs, draws: Draws) -> dict[str, float]:
    one, other, weight = pairs
    return _share(draws[one, 0] > draws[other, 0], weight)


def _share(holds: Bool[np.ndarray, "rows B"], weight: pd.Series) -> dict[str, float]:
    """Weighted share of the rows, and its jackknife interval over groups of samples."""
    weights = np.asarray(weight, dtype=np.float64)
    shares = weights @ holds / weights.sum()
    half = half_width(len(shares) - 1, LEVEL) * float(jackknife_error(shares))
    return {
        "share": float(shares[0]),
        "share_low": max(float(shares[0]) - half, 0.0),
        "share_high": min(float(shares[0]) + half, 1.0),
        "n_choices": len(weights),
    }
