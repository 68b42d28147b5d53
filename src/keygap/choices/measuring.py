"""The numbers of every choice over one site of one store.

The loops go over what costs something: layers, tokens, heads and spaces, which are sets of
coordinates. Everything else (kernel, estimator, unit, scale, mean over heads or layers) is read
off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from keygap.choices.divergences import divergences
from keygap.choices.kernel_sums import bandwidths, kernel_sums
from keygap.choices.left_out import multiplicities
from keygap.choices.levels import (
    DIVERGENCES,
    EACH,
    KEPT,
    KERNELS,
    MARGINALS,
    MEAN,
    NEIGHBOURS,
    OF_MEDIAN,
    PCA,
    TOGETHER,
    Plan,
)
from keygap.choices.notes import Place, listed
from keygap.choices.selection import CONTRASTS, Layer, Picked, Selection, is_same
from keygap.contrasts.contrast import NotMeasurable
from keygap.errors import UserError

Numbers = Float[np.ndarray, "3 B"]  # by contrast, observed and without each group of samples
Measure = tuple[str, str, str]  # unit, estimator, bias ("" for a JSD)


@dataclass(frozen=True)
class Coordinates:
    """One set of coordinates, which all its choices share."""

    layer: int
    head: int | None  # None: all heads, concatenated
    text: str
    outliers: str
    tokens: int
    space: str

    def levels(self, several_heads: bool) -> dict[str, object]:
        """The levels that say in a note where this is."""
        heads = {"heads": TOGETHER if self.head is None else self.head} if several_heads else {}
        found = {"layer": self.layer, **heads, "text": self.text, "outliers": self.outliers}
        return {**found, "tokens": self.tokens, "space": self.space}


@dataclass
class SiteNumbers:
    """Everything that was computed over one site of a store.

    Attributes:
        numbers: by coordinates and measure.
        heads: number of heads.
        n_samples: number of samples, by coordinates.
        passes: number of coordinates in which kernels were evaluated.
    """

    numbers: dict[tuple[Coordinates, Measure], Numbers] = field(default_factory=dict)
    heads: int = 1
    n_samples: dict[Coordinates, int] = field(default_factory=dict)
    passes: int = 0
    _notes: dict[str, dict[Place, None]] = field(default_factory=dict)

    def note(self, what: str, **where: object) -> None:
        """Note what the store could not serve.

        Args:
            what: the reason.
            where: a level of some factors; those of one reason are listed together.
        """
        places = self._notes.setdefault(what, {})
        if where:
            places[tuple((factor, str(level)) for factor, level in where.items())] = None

    @property
    def notes(self) -> list[str]:
        """One line for each reason, with the combinations of levels that it concerns."""
        return [" ".join([what, *listed([*places])]) for what, places in self._notes.items()]


def measure_layer(
    found: SiteNumbers,
    layer: Layer,
    index: int,
    plan: Plan,
    n_groups: int,
    device: str | torch.device,
) -> None:
    """Compute the numbers of one layer in all coordinates of a plan.

    Args:
        found: where the numbers go.
        layer: the layer.
        index: its absolute index.
        plan: the levels that are tried.
        n_groups: groups of samples that are left out in turn.
        device: where kernels are evaluated.
    """
    found.heads = layer.vectors.shape[0]
    picked = _picked(found, layer, index, plan)
    vectors = layer.read(picked.values())
    for (text, outliers, tokens), one in picked.items():
        try:
            selection = vectors.select(one)
            draws = multiplicities(selection.ranks, n_groups)
        except NotMeasurable as reason:
            found.note(str(reason), layer=index, text=text, outliers=outliers, tokens=tokens)
            continue
        for head, space in itertools.product(_heads(found, plan), plan.spaces):
            place = Coordinates(index, head, text, outliers, tokens, space)

            def note(what: str, place: Coordinates = place) -> None:
                found.note(what, **place.levels(several_heads=found.heads > 1))

            try:
                sides = selection.points(space, head)
                for measure, numbers in _numbers(
                    selection, sides, place, plan, draws, layer.seed, device, note
                ):
                    found.numbers[place, measure] = numbers
            except UserError as reason:
                note(str(reason))
                continue
            found.n_samples[place] = selection.n_samples
            found.passes += 1


def fewest_samples(layer: Layer, plan: Plan) -> int | None:
    """The number of samples of the smallest selection of a layer; None if it serves no selection.

    Args:
        layer: the layer.
        plan: the levels that are tried.
    """
    picked = _picked(SiteNumbers(), layer, 0, plan)
    return min((len(one.ranks) for one in picked.values()), default=None)


def _picked(
    found: SiteNumbers, layer: Layer, index: int, plan: Plan
) -> dict[tuple[str, str, int], Picked]:
    """The tokens of every level of text, outliers and tokens that the store can serve."""
    served: list[str] = []
    picked = {}
    for text in plan.text:
        try:
            layer.masks(text, KEPT)
        except NotMeasurable as reason:
            found.note(str(reason), layer=index, text=text)
            continue
        same = [before for before in served if is_same(layer, text, before)]
        if same:
            what = f"text {text} is the same as text {same[0]}, so it is one choice"
            found.note(what, layer=index)
            continue
        served.append(text)
        for outliers, tokens in itertools.product(plan.outliers, plan.tokens):
            try:
                picked[text, outliers, tokens] = layer.pick(text, outliers, tokens)
            except NotMeasurable as reason:
                found.note(str(reason), layer=index, text=text, outliers=outliers)
    return picked


def _heads(found: SiteNumbers, plan: Plan) -> list[int | None]:
    """All heads together, and each head where it or the mean over heads is asked for."""
    if found.heads == 1:
        if set(plan.heads) != {TOGETHER}:
            found.note("there is a single head, so together, mean and each are one choice")
        return [None]
    wanted: list[int | None] = [None] if TOGETHER in plan.heads else []
    return [*wanted, *range(found.heads)] if {MEAN, EACH} & set(plan.heads) else wanted


def _numbers(
    selection: Selection,
    sides: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]],
    place: Coordinates,
    plan: Plan,
    draws: Float[np.ndarray, "B S"],
    seed: int,
    device: str | torch.device,
    note: Callable[[str], None],
) -> Iterator[tuple[Measure, Numbers]]:
    """The numbers of one set of coordinates."""
    points = np.concatenate(sides)
    sigmas = _bandwidths(sides, plan, seed, note)
    if kernels := [*sigmas]:
        sums = kernel_sums(selection, points, kernels, sigmas, draws, device)
        for unit in plan.units:
            by_contrast = [sums.mmd2(contrast, unit) for contrast in CONTRASTS]
            for bias in by_contrast[0]:
                stacked = np.stack([of_contrast[bias] for of_contrast in by_contrast], 1)
                for name, numbers in zip(kernels, stacked, strict=True):
                    yield (unit, name, bias), numbers
    wanted = _of_jsd(plan, place)
    if not wanted:
        return
    for unit in plan.units:
        estimates = [
            dict(divergences(selection, points, contrast, unit, wanted, draws, seed, note))
            for contrast in CONTRASTS
        ]
        for name in wanted:
            if all(name in of_contrast for of_contrast in estimates):
                numbers = np.stack([of_contrast[name] for of_contrast in estimates])
                yield (unit, name, ""), numbers


def _bandwidths(
    sides: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]],
    plan: Plan,
    seed: int,
    note: Callable[[str], None],
) -> dict[str, tuple[float, ...]]:
    """The bandwidths of every kernel that can be evaluated; those without one have none here."""
    kernels = [name for name in KERNELS if name in plan.estimators]
    try:
        return bandwidths(*sides, kernels, seed)
    except UserError as reason:
        for name in OF_MEDIAN:
            if name in kernels:
                note(f"no {name}: {reason}")
    return bandwidths(*sides, [name for name in kernels if name not in OF_MEDIAN], seed)


def _of_jsd(plan: Plan, place: Coordinates) -> list[str]:
    """The estimators of the JSD that are tried in some coordinates, by ``levels.RULES``."""
    if place.head is not None:
        return []
    in_space = DIVERGENCES if place.space == PCA else (*MARGINALS, NEIGHBOURS)
    return [name for name in in_space if name in plan.estimators]
