"""What every two-sample statistic is given: two sides of vectors, and the sample of each vector.

The vectors of one sample are not independent, so no statistic may look at a row without knowing
its sample. This file turns whatever the caller holds (numpy, torch, lists; ids of any kind) into
one checked object, once, and says in one line what is wrong when something is. Whatever passes
here is finite, two-dimensional and grouped, and the statistics need no checks of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.errors import UserError

MIN_SAMPLES = 4  # fewer leave no interval: three samples have three leave-one-out values

Vectors = np.ndarray | torch.Tensor
Groups = Sequence[Hashable] | np.ndarray | torch.Tensor | None


@dataclass(frozen=True)
class TwoSides:
    """Two checked sides: vectors, and for each vector the index of its sample.

    Sample indices follow the sorted ids, so the order of the rows never matters. When `paired`,
    index s is the same sample on both sides.
    """

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    sample_x: Int[np.ndarray, " n"]
    sample_y: Int[np.ndarray, " m"]
    n_samples_x: int
    n_samples_y: int
    paired: bool
    names_x: tuple[Hashable, ...]  # sample ids, in the order of the indices
    names_y: tuple[Hashable, ...]

    @property
    def n_cells(self) -> int:
        """Number of (side, sample) cells: the units that carry equal weight on their side."""
        return self.n_samples_x + self.n_samples_y

    @property
    def pooled(self) -> Float[np.ndarray, "n+m d"]:
        """The vectors of x, then those of y."""
        return np.concatenate([self.x, self.y])

    @property
    def cells(self) -> Int[np.ndarray, " n+m"]:
        """Cell of each pooled vector: samples of x first, then those of y."""
        return np.concatenate([self.sample_x, self.sample_y + self.n_samples_x])

    @property
    def weights(self) -> Float[np.ndarray, " n+m"]:
        """Weight of each pooled vector: samples equal within a side, each side sums to 1/2."""
        return np.concatenate(
            [
                0.5 * sample_weights(self.sample_x, self.n_samples_x),
                0.5 * sample_weights(self.sample_y, self.n_samples_y),
            ]
        )


def sample_weights(sample: Int[np.ndarray, " n"], n_samples: int) -> Float[np.ndarray, " n"]:
    """Weights that sum to 1 and give every sample the same total, whatever its count."""
    counts = np.bincount(sample, minlength=n_samples)
    return 1.0 / (n_samples * counts[sample])


def in_turn(sample: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Row order: one random vector of every sample, then a second of every sample, and so on.

    The first k rows are a subsample that no sample fills.
    """
    shuffled = rng.permutation(len(sample))
    by_sample = shuffled[np.argsort(sample[shuffled], kind="stable")]
    starts = np.searchsorted(sample[by_sample], sample[by_sample])
    turn = np.arange(len(sample)) - starts
    return by_sample[np.lexsort((rng.random(len(sample)), turn))]


def two_sides(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    paired: bool | None = None,
) -> TwoSides:
    """Check both sides and index their samples.

    Without groups every row is a sample of its own. `paired=None`: paired if and only if both
    sides hold the same set of ids. `paired=True` without groups pairs row i with row i.
    `paired=False` takes the two sides' ids as unrelated even where they are equal.

    Raises UserError: not two-dimensional, an empty side, different widths, NaN or infinity (names
    the sample), ids that do not match the rows, fewer than four samples, ids shared in part.
    """
    array_x, array_y = as_vectors("x", x), as_vectors("y", y)
    if array_x.shape[1] != array_y.shape[1]:
        raise UserError(
            f"x has {array_x.shape[1]} columns and y has {array_y.shape[1]}: "
            "compare vectors of one space"
        )
    ids_x = _as_ids("x", groups_x, len(array_x))
    ids_y = _as_ids("y", groups_y, len(array_y))
    check_finite("x", array_x, ids_x)
    check_finite("y", array_y, ids_y)
    if (groups_x is None) != (groups_y is None):
        if paired:
            raise UserError("paired=True needs sample ids on both sides, or on neither")
        paired = False
    if groups_x is None and paired is None:
        paired = False

    names_x, sample_x = _index(ids_x)
    names_y, sample_y = _index(ids_y)
    if paired is None or paired:
        paired = _is_paired(names_x, names_y, bool(paired))
    for side, names in (("x", names_x), ("y", names_y)):
        if len(names) < MIN_SAMPLES:
            raise UserError(
                f"{side} has {len(names)} samples and needs at least {MIN_SAMPLES}: vectors of "
                "one sample are not independent, so samples and not vectors count"
            )
    return TwoSides(
        x=array_x,
        y=array_y,
        sample_x=sample_x,
        sample_y=sample_y,
        n_samples_x=len(names_x),
        n_samples_y=len(names_y),
        paired=paired,
        names_x=tuple(names_x),
        names_y=tuple(names_y),
    )


def thinned(sides: TwoSides, max_vectors: int, seed: int) -> TwoSides:
    """At most max_vectors of each side, taken from the samples in turn; no sample is lost."""
    if max_vectors < max(sides.n_samples_x, sides.n_samples_y):
        raise UserError(
            f"max_vectors is {max_vectors} and there are "
            f"{max(sides.n_samples_x, sides.n_samples_y)} samples: allow one vector each"
        )
    rng_x, rng_y = np.random.default_rng(seed).spawn(2)
    keep_x = np.sort(in_turn(sides.sample_x, rng_x)[:max_vectors])
    keep_y = np.sort(in_turn(sides.sample_y, rng_y)[:max_vectors])
    return replace(
        sides,
        x=sides.x[keep_x],
        y=sides.y[keep_y],
        sample_x=sides.sample_x[keep_x],
        sample_y=sides.sample_y[keep_y],
    )


def check_level(level: float) -> None:
    """UserError unless the level of an interval is a share between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise UserError(f"level is {level}: give a share between 0 and 1, such as 0.95")


def as_vectors(name: str, values: Vectors) -> Float[np.ndarray, "n d"]:
    """A two-dimensional float32 or float64 array (16-bit floats and integers are widened)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.numpy() if values.dtype == torch.float64 else values.float().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} holds {array.dtype} values: give real numbers")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if array.ndim != 2:
        raise UserError(f"{name} has shape {array.shape}: give vectors as rows, (n, d)")
    if 0 in array.shape:
        raise UserError(f"{name} has no vectors (shape {array.shape}): nothing to compare")
    return array


def _as_ids(side: str, groups: Groups, n_rows: int) -> np.ndarray:
    if groups is None:
        return np.arange(n_rows)
    ids: Any = groups.detach().cpu().numpy() if isinstance(groups, torch.Tensor) else groups
    if not isinstance(ids, np.ndarray):
        items = list(ids)
        plain = {type(item) for item in items} in ({int}, {str})
        ids = np.asarray(items) if plain else _object_array(items)
    if ids.ndim != 1 or len(ids) != n_rows:
        raise UserError(
            f"groups_{side} has shape {ids.shape} and {side} has {n_rows} rows: "
            "give one sample id for each row"
        )
    return ids


def _object_array(items: list[Any]) -> np.ndarray:
    # np.asarray would turn [1, "1"] into two equal strings, and tuples into columns.
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _index(ids: np.ndarray) -> tuple[list[Hashable], Int[np.ndarray, " n"]]:
    """Distinct ids in sorted order, and for each row the position of its id."""
    if ids.dtype.kind != "O":
        names, index = np.unique(ids, return_inverse=True)
        return names.tolist(), index
    ordered = sorted(set(ids), key=lambda item: (type(item).__name__, repr(item)))
    position = {item: i for i, item in enumerate(ordered)}
    return ordered, np.array([position[item] for item in ids])


def _is_paired(names_x: list[Hashable], names_y: list[Hashable], required: bool) -> bool:
    set_x, set_y = set(names_x), set(names_y)
    shared = len(set_x & set_y)
    if set_x == set_y:
        return True
    counts = f"{len(set_x)} samples in x, {len(set_y)} in y, {shared} in both"
    if required:
        raise UserError(f"paired=True needs the same samples on both sides, found {counts}")
    if shared:
        raise UserError(
            f"the sides share some samples and not all ({counts}): keep only the shared samples "
            "(paired), or give each sample to one side (unpaired)"
        )
    if {type(name) for name in set_x}.isdisjoint({type(name) for name in set_y}):
        raise UserError(
            f"groups_x are {type(names_x[0]).__name__} and groups_y {type(names_y[0]).__name__}: "
            "give ids of one type, or paired=False"
        )
    return False


def check_finite(side: str, array: np.ndarray, ids: np.ndarray) -> None:
    """UserError that names the sample of the first row with NaN or infinity."""
    if np.isfinite(array.sum(dtype=np.float64)):  # one pass, no mask in memory
        return
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad) == 0:  # finite, and only the sum overflowed
        return
    value = "NaN" if np.isnan(array[bad[0]]).any() else "an infinite value"
    sample = ids[bad[:1]].tolist()[0]
    raise UserError(
        f"{side} holds {value} in sample {sample!r}, row {bad[0]} ({len(bad)} such rows): "
        "drop these vectors, or capture them again"
    )
