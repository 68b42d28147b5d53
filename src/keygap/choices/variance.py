"""Which choice moves a number most: a decomposition of its variance over the choices.

The share of a factor alone is the variance of the means of its levels. With interactions, it is
what remains if everything but this factor is held fixed: the mean variance inside groups of rows
that agree in all other factors (Sobol' 1993; the total index of Homma and Saltelli 1996). Choices
that a rule leaves out make the design incomplete, so shares alone need not add up to at most 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from keygap.choices.levels import FACTORS, GAUSSIANS

VARIANCE_COLUMNS = (
    "number", "measure", "factor", "alone", "with_interactions", "n_choices",
)  # fmt: skip
MEASURED = ("model", "benchmark", "site")  # factors too, where there are several


def variance_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Decompose the variance of each number over the choices.

    The numbers are log10 of the ratio (all MMDs whose ratio is positive and finite), the MMD by a
    Gaussian kernel (others have other units), and the JSD.

    Args:
        frame: rows of ``choices.parquet``.

    Returns:
        Rows of ``VARIANCE_COLUMNS``, the largest share first within a number. Several models,
        benchmarks and sites are factors too.
    """
    is_mmd = frame["measure"] == "mmd"
    usable = is_mmd & (frame["ratio"] > 0) & np.isfinite(frame["ratio"])
    gaussian = is_mmd & frame["estimator"].isin(GAUSSIANS)
    numbers = {
        ("log10 ratio", "mmd"): np.log10(frame["ratio"].where(usable)),
        ("MMD, Gaussian", "mmd"): frame["cross"].where(gaussian),
        ("JSD", "jsd"): frame["cross"].where(frame["measure"] == "jsd"),
    }
    rows = []
    for (number, measure), values in numbers.items():
        own = values.dropna()
        if len(own) < 2 or own.var() == 0:
            continue
        shares = _shares(frame.loc[own.index], own, [*MEASURED, *FACTORS])
        for factor, (alone, total) in shares.items():
            rows.append({
                "number": number, "measure": measure, "factor": factor, "alone": alone,
                "with_interactions": total, "n_choices": len(own),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(VARIANCE_COLUMNS))


def _shares(
    frame: pd.DataFrame, values: pd.Series, factors: list[str]
) -> dict[str, tuple[float, float]]:
    """Share alone and with interactions of every factor with several levels, largest first."""
    weights = frame["weight"].to_numpy()
    varied = [name for name in factors if frame[name].nunique() > 1]
    total = _variance(values.to_numpy(), weights)
    found = {}
    for name in varied:
        others = [other for other in varied if other != name]
        means = _group_means(values, weights, frame[name])
        alone = _variance(means, weights) / total
        rest = values.to_numpy() - _group_means(values, weights, *(frame[o] for o in others))
        found[name] = alone, float((weights * rest**2).sum() / weights.sum() / total)
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def _group_means(values: pd.Series, weights: np.ndarray, *keys: pd.Series) -> np.ndarray:
    """Weighted mean of the group of every row."""
    if not keys:
        return np.full(len(values), np.average(values, weights=weights))
    group = pd.MultiIndex.from_arrays(list(keys)).factorize()[0]
    sums = np.bincount(group, weights=weights * values.to_numpy())
    return (sums / np.bincount(group, weights=weights))[group]


def _variance(values: np.ndarray, weights: np.ndarray) -> float:
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
