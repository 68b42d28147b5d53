"""Checked input of every two-sample statistic: two sides of vectors and the sample of each vector.

Vectors of one sample are not independent, so no statistic may look at a row without knowing its
sample. Callers hold numpy arrays, tensors or lists, and ids of any type. ``two_sides`` turns these
into one checked object and reports any fault in one line. What passes here is finite,
two-dimensional and grouped by sample, so the statistics need no checks of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.weights import mean_by_sample, sample_weights

MIN_SAMPLES = 4  # three samples give three leave-one-out values: too few for an interval

Array = np.ndarray | torch.Tensor
Groups = Sequence[Hashable] | np.ndarray | torch.Tensor | None


@dataclass(frozen=True)
class CheckedSides:
    """Two checked sides: vectors, and the index of the sample of each vector.

    Attributes:
        x: Vectors of the first side, shape (n, d), float32 or float64.
        y: Vectors of the second side, shape (m, d).
        sample_x: Sample index of each row of ``x``. Indices follow the sorted ids, whatever the
            order of the rows; only draws of rows depend on that. For paired sides, index s is the
            same sample on both sides.
        sample_y: Sample index of each row of ``y``.
        n_samples_x: Number of samples of the first side.
        n_samples_y: Number of samples of the second side.
        paired: Whether both sides hold the same samples.
        names_x: Sample ids of the first side, in the order of the indices.
    """

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    sample_x: Int[np.ndarray, " n"]
    sample_y: Int[np.ndarray, " m"]
    n_samples_x: int
    n_samples_y: int
    paired: bool
    names_x: tuple[Hashable, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells. A cell is one sample on one side, the unit of equal weight."""
        return self.n_samples_x + self.n_samples_y

    @property
    def pooled(self) -> Float[np.ndarray, "n+m d"]:
        """The vectors of x followed by those of y."""
        return np.concatenate([self.x, self.y])

    @property
    def is_x(self) -> Bool[np.ndarray, " n+m"]:
        """Whether each pooled vector is on the first side."""
        return np.arange(len(self.x) + len(self.y)) < len(self.x)

    @property
    def cells(self) -> Int[np.ndarray, " n+m"]:
        """Cell of each pooled vector: samples of x first, then those of y."""
        return np.concatenate([self.sample_x, self.sample_y + self.n_samples_x])

    @property
    def weights_x(self) -> Float[np.ndarray, " n"]:
        """Weight of each vector of x: equal for its samples, summing to 1."""
        return sample_weights(self.sample_x, self.n_samples_x)

    @property
    def weights_y(self) -> Float[np.ndarray, " m"]:
        """Weight of each vector of y: equal for its samples, summing to 1."""
        return sample_weights(self.sample_y, self.n_samples_y)

    @property
    def weights(self) -> Float[np.ndarray, " n+m"]:
        """Weight of each pooled vector: equal for the samples of a side; each side sums to 1/2."""
        return np.concatenate([0.5 * self.weights_x, 0.5 * self.weights_y])

    def by_sample(
        self, of_x: Float[np.ndarray, "n ..."], of_y: Float[np.ndarray, "m ..."]
    ) -> tuple[Float[np.ndarray, "s ..."], Float[np.ndarray, "t ..."]]:
        """Mean over the vectors of each sample, for each side.

        Args:
            of_x: One value or row for each vector of x.
            of_y: One value or row for each vector of y.

        Returns:
            The means of the samples of x and of y, in float64.
        """
        return (
            mean_by_sample(of_x, self.sample_x, self.n_samples_x),
            mean_by_sample(of_y, self.sample_y, self.n_samples_y),
        )


def two_sides(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    paired: bool | None = None,
) -> CheckedSides:
    """Check both sides and index their samples.

    Args:
        x: Vectors of the first side, shape (n, d).
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        paired: None: paired if and only if both sides have ids and hold the same set of them.
            True: the sets must be equal; without ids, row i is paired with row i. False: ids of
            the two sides are unrelated even where they are equal.

    Returns:
        The checked sides.

    Raises:
        UserError: A side is empty or not two-dimensional, the widths differ, a value is NaN or
            infinite, the ids do not match the rows, a side has fewer than four samples, or the
            sides share some samples and not all.
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
    names_x, sample_x = _index(ids_x)
    names_y, sample_y = _index(ids_y)
    if (groups_x is None) != (groups_y is None):
        if paired:
            raise UserError("paired=True needs sample ids on both sides, or on neither")
        paired = False
    elif paired is None and groups_x is None:
        paired = False
    is_paired = paired is not False and _hold_the_same(names_x, names_y, required=bool(paired))
    if is_paired:  # ids that are equal may be sorted differently, such as 10 and 10.0
        place = {name: s for s, name in enumerate(names_x)}
        sample_y = np.array([place[name] for name in names_y])[sample_y]
    _check_number_of_samples(x=len(names_x), y=len(names_y))
    return CheckedSides(
        x=array_x,
        y=array_y,
        sample_x=sample_x,
        sample_y=sample_y,
        n_samples_x=len(names_x),
        n_samples_y=len(names_y),
        paired=is_paired,
        names_x=tuple(names_x),
    )


def in_turn(sample: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Random order of rows in which the samples take turns.

    One random vector of every sample comes first, then a second one of every sample, and so on, so
    the first k rows are a subsample that no single sample dominates.

    Args:
        sample: Sample index of each row.
        rng: Source of randomness.

    Returns:
        Row indices in that order.
    """
    shuffled = rng.permutation(len(sample))
    by_sample = shuffled[np.argsort(sample[shuffled], kind="stable")]
    starts = np.searchsorted(sample[by_sample], sample[by_sample])
    turn = np.arange(len(sample)) - starts
    return by_sample[np.lexsort((rng.random(len(sample)), turn))]


def with_equal_numbers(sides: CheckedSides, max_vectors: int, seed: int) -> CheckedSides:
    """Sides with as many vectors as each other, at most ``max_vectors``.

    The vectors of the larger side are taken from its samples in turn. A larger side whose samples
    outnumber the vectors of the other one loses samples.

    Args:
        sides: Both sides.
        max_vectors: Limit for each side.
        seed: Seed of the choice.

    Returns:
        Both sides. Paired ones still have every sample.

    Raises:
        UserError: The limit is smaller than the number of samples.
    """
    if max_vectors < max(sides.n_samples_x, sides.n_samples_y):
        raise UserError(
            f"max_vectors is {max_vectors} and there are "
            f"{max(sides.n_samples_x, sides.n_samples_y)} samples: allow one vector each"
        )
    count = min(len(sides.x), len(sides.y), max_vectors)
    if count == max(len(sides.x), len(sides.y)):
        return sides
    streams = random_streams.generator(seed, "thinning").spawn(2)
    larger_is_y = len(sides.y) > len(sides.x)  # what is drawn of a side does not depend on its name
    rng_x, rng_y = reversed(streams) if larger_is_y else streams
    keep_x = np.sort(in_turn(sides.sample_x, rng_x)[:count])
    keep_y = np.sort(in_turn(sides.sample_y, rng_y)[:count])
    left_x, sample_x = np.unique(sides.sample_x[keep_x], return_inverse=True)
    left_y, sample_y = np.unique(sides.sample_y[keep_y], return_inverse=True)
    return replace(
        sides,
        x=sides.x[keep_x],
        y=sides.y[keep_y],
        sample_x=sample_x,
        sample_y=sample_y,
        n_samples_x=len(left_x),
        n_samples_y=len(left_y),
        names_x=tuple(sides.names_x[place] for place in left_x),
    )


def check_level(level: float) -> None:
    """Check the confidence level of an interval.

    Args:
        level: Share of intervals that hold the truth.

    Raises:
        UserError: The level is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise UserError(f"level is {level}: give a share between 0 and 1, such as 0.95")


def check_varies(sides: CheckedSides, consequence: str) -> None:
    """Check that each side has two different vectors.

    Args:
        sides: Both sides.
        consequence: What is impossible otherwise, for the message.

    Raises:
        UserError: All vectors of a side are equal.
    """
    for name, values in (("x", sides.x), ("y", sides.y)):
        if not np.ptp(values, axis=0).any():
            raise UserError(f"all vectors of {name} are equal: {consequence}")


def as_vectors(name: str, values: Array) -> Float[np.ndarray, "n d"]:
    """Vectors as a two-dimensional float32 or float64 array.

    Args:
        name: Name of the argument, for messages.
        values: Array or tensor. 16-bit floats become float32, integers become float64.

    Returns:
        The array, without a copy where its type already fits.

    Raises:
        UserError: The values are not real numbers, not two-dimensional, or there are none.
    """
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


def check_finite(side: str, array: Float[np.ndarray, "n d"], ids: np.ndarray) -> None:
    """Check that no value is NaN or infinite.

    Args:
        side: Name of the side, for the message.
        array: Vectors as rows.
        ids: Sample id of each row, for the message.

    Raises:
        UserError: A value is not finite; the message names the first such row and its sample.
    """
    if np.isfinite(array.sum(dtype=np.float64)):  # one pass that needs no mask
        return
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad) == 0:  # every value is finite and only the sum overflowed
        return
    value = "NaN" if np.isnan(array[bad[0]]).any() else "an infinite value"
    sample = ids[bad[:1]].tolist()[0]
    raise UserError(
        f"{side} holds {value} in sample {sample!r}, row {bad[0]} ({len(bad)} such rows): "
        "drop these vectors, or capture them again"
    )


def _check_number_of_samples(**counts: int) -> None:
    for side, count in counts.items():
        if count < MIN_SAMPLES:
            raise UserError(
                f"{side} has {count} samples and needs at least {MIN_SAMPLES}: vectors of one "
                "sample are not independent, so samples are counted and not vectors"
            )


def _as_ids(side: str, groups: Groups, n_rows: int) -> np.ndarray:
    if groups is None:
        return np.arange(n_rows)
    ids: Any = groups.detach().cpu().numpy() if isinstance(groups, torch.Tensor) else groups
    if not isinstance(ids, np.ndarray):
        items = list(ids)
        ids = np.asarray(items) if _of_one_kind(items) else _object_array(items)
    if ids.ndim != 1 or len(ids) != n_rows:
        raise UserError(
            f"groups_{side} has shape {ids.shape} and {side} has {n_rows} rows: "
            "give one sample id for each row"
        )
    return ids


def _of_one_kind(items: list[Any]) -> bool:
    types = {type(item) for item in items}
    if types in ({int}, {str}):
        return True
    scalars = all(issubclass(one, np.generic) for one in types)
    return scalars and len({np.dtype(one).kind for one in types}) == 1


def _object_array(items: list[Any]) -> np.ndarray:
    # np.asarray would turn [1, "1"] into two equal strings, and tuples into columns.
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _index(ids: np.ndarray) -> tuple[list[Hashable], Int[np.ndarray, " n"]]:
    """Distinct ids in sorted order, and the position of the id of each row."""
    if ids.dtype.kind != "O":
        distinct, index = np.unique(ids, return_inverse=True)
        return distinct.tolist(), index
    name_of = {item: item.item() if isinstance(item, np.generic) else item for item in set(ids)}
    names = list(name_of.values())
    if {type(name) for name in names} in ({int}, {str}):
        names.sort()  # as np.unique does
    else:
        names.sort(key=lambda name: (type(name).__name__, repr(name)))
    position = {name: i for i, name in enumerate(names)}
    return names, np.array([position[name_of[item]] for item in ids])


def _hold_the_same(names_x: list[Hashable], names_y: list[Hashable], required: bool) -> bool:
    """Whether both sides hold the same samples; sides that share only some are refused."""
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
