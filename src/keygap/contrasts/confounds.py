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
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from keygap.contrasts.ladder import Masks, NotMeasurable, halves, is_image, is_sink, is_text

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
    """As many pairs as there are of an image and a text token of two samples at one position.

    Samples weigh the same, so equal numbers of tokens at each position are not enough: here each
    sample gives one token to one side. Half of the samples offer image tokens, the others text.
    """
    rng = np.random.default_rng(seed)
    position = labels["position"].to_numpy()
    sample, ids = pd.factorize(labels["sample_id"])
    images, texts = is_image(labels), is_text(labels, roles)
    first, second = halves(labels, images | texts, seed)
    at = [
        sparse.csr_array(
            (np.ones(int(side.sum()), dtype=np.int32), (sample[side], position[side])),
            shape=(len(ids), int(position.max()) + 1),
        )
        for side in (images & first, texts & second)
    ]
    share_a_position = sparse.csr_matrix(at[0] @ at[1].T)
    partner = maximum_bipartite_matching(share_a_position, perm_type="column")
    kept = [np.zeros(len(labels), dtype=bool) for _ in range(2)]
    for pair in zip(np.flatnonzero(partner >= 0), partner[partner >= 0], strict=True):
        of_image, of_text = (
            side.indices[side.indptr[one] : side.indptr[one + 1]]
            for side, one in zip(at, pair, strict=True)
        )
        place = rng.choice(np.intersect1d(of_image, of_text))
        for mask, one in zip(kept, pair, strict=True):
            mask |= (sample == one) & (position == place)
    if not kept[0].any():
        raise NotMeasurable("image and text of two samples never stand at the same position")
    return kept[0] & images, kept[1] & texts


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
