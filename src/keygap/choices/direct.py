"""Recompute one row directly with ``keygap.gap``.

It uses the same tokens but not the shared kernel sums. A number from shared sums must equal the
number that anyone gets from the same vectors with the same settings: this is how that is checked,
and how a reader sees what a row was computed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from keygap import gap
from keygap.choices.divergences import CRITICS
from keygap.choices.kernel_sums import bandwidths
from keygap.choices.levels import JOINTS, KERNELS, MARGINALS, MEAN, NEIGHBOURS, TOGETHER, Plan
from keygap.choices.rows import ratio_of, scaled
from keygap.choices.running import layer_levels, sample_ranks
from keygap.choices.selection import CONTRASTS, Layer
from keygap.choices.tables import ChoicesTable
from keygap.errors import UserError, unknown
from keygap.gap.mmd import Kernel
from keygap.store import Store


@dataclass(frozen=True)
class DirectRow:
    """A row of the table beside the same choice made directly.

    Attributes:
        row: the row of the table.
        values: ``cross``, ``image_image``, ``text_text`` and ``ratio``, computed again.
        calls: what was called, one line for each contrast of the first layer and head.
    """

    row: Mapping[str, Any]
    values: dict[str, float]
    calls: list[str]


def again(table: ChoicesTable, stores: list[Store], row: str) -> DirectRow:
    """Compute one row again through ``keygap.gap``.

    Args:
        table: the table that has the row.
        stores: the stores that it was made from, which share one order of samples.
        row: its id.

    Returns:
        The numbers of the row, computed anew.

    Raises:
        UserError: the table has no such row, or its store is not among these.
    """
    found = table.frame[table.frame["row"] == row]
    if found.empty:
        raise UserError(f"no row {row!r} among {len(table.frame)} choices: see column row")
    levels = {str(name): value for name, value in found.iloc[0].items()}
    store = _store_of(levels, stores)
    site, seed = str(levels["site"]), int(table.settings["seed"])
    plan = Plan(layers=[str(levels["layer"])])
    indices = layer_levels(store.layers(site), store.manifest["n_layers"], plan)[levels["layer"]]
    ranks = sample_ranks(stores, seed)[str(levels["benchmark"])]
    numbers, calls = [], []
    for index in indices:
        layer = Layer(store.layer(site, index), ranks, seed)
        for head in _heads(levels["heads"], layer.vectors.shape[0]):
            one, of_one = _numbers(layer, levels, head, seed)
            numbers.append(scaled(one, str(levels["scale"])))
            calls.append(of_one)
    mean = np.mean(numbers, 0)
    values = dict(zip(CONTRASTS, mean.tolist(), strict=True))
    return DirectRow(levels, {**values, "ratio": float(ratio_of(mean))}, calls[0])


def _store_of(levels: Mapping[str, Any], stores: list[Store]) -> Store:
    for store in stores:
        if all(store.manifest[name] == levels[name] for name in ("model", "benchmark")):
            return store
    known = [store.manifest["model"] for store in stores]
    raise unknown("model", levels["model"], known, hint=f"with {levels['benchmark']}")


def _heads(level: str, heads: int) -> list[int | None]:
    if level == TOGETHER:
        return [None]
    return [*range(heads)] if level == MEAN else [int(level)]


def _numbers(
    layer: Layer, levels: Mapping[str, Any], head: int | None, seed: int
) -> tuple[Float[np.ndarray, " 3"], list[str]]:
    """MMD squared or JSD in nats of every contrast, and the calls that gave them."""
    selection = layer.select(levels["text"], levels["outliers"], int(levels["tokens"]))
    image, text = selection.points(levels["space"], head)
    points = np.concatenate([image, text])
    name, unit = str(levels["estimator"]), str(levels["unit"])
    sigmas = bandwidths(image, text, [name], seed)[name] if name in KERNELS else ()
    values, calls = [], []
    for contrast in CONTRASTS:
        rows = selection.rows(contrast, unit)
        x, y = (points[own] for own in rows)
        groups = [selection.groups(own, unit) for own in rows]
        function, options = _call(name, str(levels["bias"]), sigmas)
        result = function(x, y, *groups, seed=seed, **options)
        values.append(result.mmd2 if name in KERNELS else result.nats)
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        ids = "" if unit == "token" else ", sample ids"
        calls.append(f"{contrast}: gap.{function.__name__}({x.shape}, {y.shape}{ids}, {shown})")
    return np.array(values), calls


def _call(name: str, bias: str, sigmas: tuple[float, ...]) -> tuple[Any, dict[str, Any]]:
    """The function of ``keygap.gap`` and its options for an estimator."""
    if name in KERNELS:
        kernel: Kernel = "gaussian" if sigmas else name  # type: ignore[assignment]
        bandwidth = {"bandwidth": sigmas} if sigmas else {}
        resamplings = {"n_permutations": 0, "n_bootstraps": 0}
        return gap.mmd, {"kernel": kernel, "estimator": bias, **bandwidth, **resamplings}
    if name in MARGINALS:
        return gap.jsd_marginals, {"bins": int(name.rpartition("_")[2]), "n_permutations": 0}
    if name in JOINTS:
        dims, bins = JOINTS[name]
        return gap.jsd_histogram, {"dims": dims, "bins": bins, "n_permutations": 0}
    if name == NEIGHBOURS:
        return gap.jsd_neighbours, {"n_permutations": 0}
    return gap.jsd, {"critics": CRITICS, "n_permutations": 0, "n_bootstraps": 1}
