"""What else could make image and text differ: each confound as a switch, a row beside the main one.

A confound takes the two sides of a contrast and gives two sides without it. If the gap stays, that
was not the reason. Before and after RoPE is no switch here: those are two sites, ``k_proj`` and
``key``. A new confound is one function and one line in ``SELECTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from keygap.contrasts import Masks, NotMeasurable, is_image, is_sink, is_text

MASSIVE = 6.0  # a massive dimension's root mean square over the median one
Select = Callable[[pd.DataFrame, Sequence[str], int], Masks]


def with_template(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Template tokens count as text too: they are the same in every prompt."""
    return is_image(labels), is_text(labels, [*roles, "template", "system"])


def without_sinks(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Attention sinks are left out on both sides."""
    rest = ~is_sink(labels)
    if rest.all():
        raise NotMeasurable("there is no sink to leave out")
    a, b = is_image(labels) & rest, is_text(labels, roles) & rest
    if a.sum() == is_image(labels).sum() and b.sum() == is_text(labels, roles).sum():
        raise NotMeasurable("no sink is an image token or text of these roles")
    return a, b


def equal_counts(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """As many tokens of each side in every sample, drawn by the seed."""
    rng = np.random.default_rng(seed)
    sides = is_image(labels), is_text(labels, roles)
    kept = [np.zeros(len(labels), dtype=bool) for _ in sides]
    samples = labels.groupby("sample_id", observed=True, sort=False).indices
    for rows in map(np.asarray, samples.values()):
        of_side = [rows[side[rows]] for side in sides]
        count = min(len(places) for places in of_side)
        for mask, places in zip(kept, of_side, strict=True):
            mask[rng.choice(places, count, replace=False)] = True
    return kept[0], kept[1]


def position_matched(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Each side has the same number of tokens at every position, over all samples."""
    rng = np.random.default_rng(seed)
    position = labels["position"].to_numpy()
    a, b = is_image(labels), is_text(labels, roles)
    shared = np.intersect1d(position[a], position[b])
    if not len(shared):
        raise NotMeasurable("image and text never stand at the same position")
    kept = [np.zeros(len(labels), dtype=bool) for _ in range(2)]
    for place in shared:
        of_side = [np.flatnonzero(side & (position == place)) for side in (a, b)]
        count = min(len(places) for places in of_side)
        for mask, rows in zip(kept, of_side, strict=True):
            mask[rng.choice(rows, count, replace=False)] = True
    return kept[0], kept[1]


def relative_size(
    array: Float[np.ndarray, "n heads head_dim"],
) -> Float[np.ndarray, "heads head_dim"]:
    """Root mean square of each dimension over that of the median one."""
    size = np.sqrt((array.astype(np.float64) ** 2).mean(0))
    return size / max(float(np.median(size)), float(np.finfo(np.float64).tiny))


def massive_dimensions(
    array: Float[np.ndarray, "n heads head_dim"],
) -> Bool[np.ndarray, "heads head_dim"]:
    """Dimensions whose root mean square is ``MASSIVE`` times the median one, or more.

    Raises:
        NotMeasurable: there is none.
    """
    massive = relative_size(array) >= MASSIVE
    if not massive.any():
        raise NotMeasurable(f"no dimension is {MASSIVE:g} times the median one")
    return massive


SELECTIONS: dict[str, Select] = {
    "with_template": with_template,
    "without_sinks": without_sinks,
    "equal_counts": equal_counts,
    "position_matched": position_matched,
}
CONFOUNDS = (*SELECTIONS, "without_massive")
