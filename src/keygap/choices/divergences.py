"""Every estimate of the JSD of one set of coordinates, observed and without each group of samples.

Each estimate is a function of histograms or of one term for each token, so it is computed without
some samples and is not fitted again. The observed values are those of ``gap.jsd_marginals``,
``gap.jsd_histogram``, ``gap.jsd_neighbours`` and ``gap.jsd``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from keygap import gap, random_streams
from keygap.choices.left_out import histogram_divergence, mean_terms
from keygap.choices.levels import JOINTS, MARGINALS, NEIGHBOURS, SAMPLE
from keygap.choices.selection import Selection
from keygap.errors import UserError
from keygap.gap.core.bins import equal_width_bins
from keygap.gap.core.calibration import LN2, bound_terms
from keygap.gap.core.components import pooled_components
from keygap.gap.core.held_out import MAX_VECTORS, held_out, named_critics
from keygap.gap.core.inputs import CheckedSides, two_sides, with_equal_numbers
from keygap.gap.jsd_histogram import joint_bins

CRITICS = ("linear", "quadratic")  # the network would take most of the time of all choices
Draws = Float[np.ndarray, "B S"]
Note = Callable[[str], None]


def divergences(
    selection: Selection,
    points: Float[np.ndarray, "n+m d"],
    contrast: str,
    unit: str,
    estimators: Sequence[str],
    draws: Draws,
    seed: int,
    note: Note,
) -> Iterator[tuple[str, Float[np.ndarray, " B"]]]:
    """Estimate the JSD of one contrast by several estimators, in nats.

    Args:
        selection: the tokens.
        points: their vectors in some coordinates, image tokens first.
        contrast: one of ``selection.CONTRASTS``.
        unit: ``sample`` or ``token``: what weighs the same, what is split in halves, and what the
            folds of the classifier keep together.
        estimators: names of ``levels.DIVERGENCES``.
        draws: multiplicities of the samples; row 0 counts each sample once.
        seed: of the classifier's folds and of the tokens that ``neighbours`` leaves out.
        note: called with a line for an estimate that these vectors do not have.

    Yields:
        The name of an estimator, and its values.
    """
    rows = selection.rows(contrast, unit)
    x, y = (points[own] for own in rows)
    groups = [selection.groups(own, unit) for own in rows]
    sides = two_sides(x, y, groups[0], groups[1])
    samples = tuple(selection.samples[own] for own in rows)
    by_sample = unit == SAMPLE
    components = {}
    for name in estimators:
        try:
            if name in MARGINALS:
                n_bins = int(name.rpartition("_")[2])
                index = equal_width_bins(sides.pooled.astype(np.float64), n_bins)
                split = index[: len(x)], index[len(x) :]
                values = histogram_divergence(split, n_bins, samples, draws, by_sample)
            elif name in JOINTS:
                dims, n_bins = JOINTS[name]
                if dims not in components:
                    components[dims] = pooled_components(sides, dims, allow_fewer=True)
                if components[dims].available < dims:
                    raise UserError(f"these vectors vary in fewer than {dims} directions")
                joint, occupied = joint_bins(components[dims].scores, n_bins)
                split = joint[: len(x), None], joint[len(x) :, None]
                values = histogram_divergence(split, occupied, samples, draws, by_sample)
            elif name == NEIGHBOURS:
                values = _by_neighbours(x, y, groups, samples, draws, by_sample, seed)
            else:
                values = _by_classifier(sides, samples, draws, by_sample, seed)
        except UserError as reason:
            note(f"no {name} of {contrast}: {reason}")
            continue
        yield name, values


def _by_neighbours(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    groups: Sequence[list[int] | None],
    samples: tuple[np.ndarray, ...],
    draws: Draws,
    by_sample: bool,
    seed: int,
) -> Float[np.ndarray, " B"]:
    found = gap.jsd_neighbours(x, y, *groups, n_permutations=0, seed=seed)
    each = len(found.kept_x)
    sides = [
        mean_terms(terms, own[kept], draws, by_sample)
        for terms, own, kept in zip(
            (found.terms[:each], found.terms[each:]),
            samples,
            (found.kept_x, found.kept_y),
            strict=True,
        )
    ]
    return np.clip(0.5 * (sides[0] + sides[1]), 0.0, LN2)


def _by_classifier(
    sides: CheckedSides,
    samples: tuple[np.ndarray, ...],
    draws: Draws,
    by_sample: bool,
    seed: int,
) -> Float[np.ndarray, " B"]:
    """The bound of ``gap.jsd``, with its held-out terms averaged."""
    equal, kept = _equal_numbers(sides, seed)
    found = pooled_components(equal, None)
    rng = random_streams.generator(seed, "jsd", "folds and label swaps")
    logits = held_out(equal, found.scores, named_critics(CRITICS), 0, rng, seed).logits
    terms = bound_terms(logits, equal.is_x)
    n = len(equal.x)
    means = [
        mean_terms(own, sample[rows], draws, by_sample)
        for own, sample, rows in zip((terms[:n], terms[n:]), samples, kept, strict=True)
    ]
    return np.clip(0.5 * (means[0] + means[1]), 0.0, LN2)


def _equal_numbers(
    sides: CheckedSides, seed: int
) -> tuple[CheckedSides, tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]]:
    """The vectors that ``gap.jsd`` uses of both sides, and which rows they are.

    While they are drawn, each vector is represented by its place.
    """
    places = [np.arange(len(side), dtype=np.float64)[:, None] for side in (sides.x, sides.y)]
    drawn = with_equal_numbers(replace(sides, x=places[0], y=places[1]), MAX_VECTORS, seed)
    kept = drawn.x[:, 0].astype(np.int64), drawn.y[:, 0].astype(np.int64)
    return replace(drawn, x=sides.x[kept[0]], y=sides.y[kept[1]]), kept
