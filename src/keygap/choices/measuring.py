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
from keygap.choices.kernel_sums import kernel_sums
from keygap.choices.left_out import multiplicities
from keygap.choices.levels import (
    DIVERGENCES,
    EACH,
    KERNELS,
    MARGINALS,
    MEAN,
    NEIGHBOURS,
    PCA,
    TOGETHER,
    Plan,
)
from keygap.choices.selection import CONTRASTS, Layer, Selection, is_same
from keygap.contrasts.contrast import NotMeasurable
from keygap.errors import UserError
from keygap.store import LabelledVectors

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
    _notes: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def note(self, what: str, **where: object) -> None:
        """Note what the store could not serve.

        Args:
            what: the reason.
            where: levels of some factors; those of one reason are listed together.
        """
        places = self._notes.setdefault(what, {})
        for factor, level in where.items():
            levels = places.setdefault(factor, [])
            if str(level) not in levels:
                levels.append(str(level))

    @property
    def notes(self) -> list[str]:
        """One line for each reason, with the levels that it concerns."""
        return [
            f"{what} ({'; '.join(f'{name} ' + ', '.join(of) for name, of in places.items())})"
            if places
            else what
            for what, places in self._notes.items()
        ]


def measure_layer(
    found: SiteNumbers,
    vectors: LabelledVectors,
    layer: int,
    plan: Plan,
    n_groups: int,
    seed: int,
    device: str | torch.device,
) -> None:
    """Compute the numbers of one layer in all coordinates of a plan.

    Args:
        found: where the numbers go.
        vectors: of the layer.
        layer: its absolute index.
        plan: the levels that are tried.
        n_groups: groups of samples that are left out in turn.
        seed: of the tokens and of every random draw.
        device: where kernels are evaluated.
    """
    found.heads = vectors.array.shape[1]
    for (text, outliers, tokens), selection in _selections(found, vectors, layer, plan, seed):
        draws = multiplicities(selection.n_samples, n_groups)
        for head, space in itertools.product(_heads(found, plan), plan.spaces):
            place = Coordinates(layer, head, text, outliers, tokens, space)

            def note(what: str, place: Coordinates = place) -> None:
                found.note(what, **{key: v for key, v in vars(place).items() if v is not None})

            try:
                sides = selection.points(space, head)
                for measure, numbers in _numbers(
                    selection, np.concatenate(sides), place, plan, draws, seed, device, note
                ):
                    found.numbers[place, measure] = numbers
            except UserError as reason:
                note(str(reason))
                continue
            found.n_samples[place] = selection.n_samples
            found.passes += 1


def fewest_samples(vectors: LabelledVectors, layer: int, plan: Plan, seed: int) -> int | None:
    """The number of samples of the smallest selection of a layer; None if it serves no selection.

    Args:
        vectors: of the layer.
        layer: its absolute index.
        plan: the levels that are tried.
        seed: of the tokens.
    """
    selections = _selections(SiteNumbers(), vectors, layer, plan, seed)
    return min((selection.n_samples for _, selection in selections), default=None)


def _selections(
    found: SiteNumbers, vectors: LabelledVectors, layer: int, plan: Plan, seed: int
) -> Iterator[tuple[tuple[str, str, int], Selection]]:
    """The tokens of every level of text, outliers and tokens that the store can serve."""
    of_layer = Layer(vectors, seed)
    served: list[str] = []
    for text in plan.text:
        try:
            same = [before for before in served if is_same(of_layer, text, before)]
        except NotMeasurable as reason:
            found.note(str(reason), layer=layer, text=text)
            continue
        if same:
            found.note(f"text {text} is the same as text {same[0]} here, so it is one choice")
            continue
        served.append(text)
        for outliers, tokens in itertools.product(plan.outliers, plan.tokens):
            try:
                yield (text, outliers, tokens), of_layer.select(text, outliers, tokens)
            except NotMeasurable as reason:
                found.note(str(reason), layer=layer, text=text, outliers=outliers)


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
    points: Float[np.ndarray, "n+m d"],
    place: Coordinates,
    plan: Plan,
    draws: Float[np.ndarray, "B S"],
    seed: int,
    device: str | torch.device,
    note: Callable[[str], None],
) -> Iterator[tuple[Measure, Numbers]]:
    """The numbers of one set of coordinates."""
    kernels = [name for name in KERNELS if name in plan.estimators]
    if kernels:
        sums = kernel_sums(selection, points, kernels, seed, device)
        for unit in plan.units:
            by_contrast = [sums.mmd2(contrast, unit, draws) for contrast in CONTRASTS]
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


def _of_jsd(plan: Plan, place: Coordinates) -> list[str]:
    """The estimators of the JSD that are tried in some coordinates, by ``levels.RULES``."""
    if place.head is not None:
        return []
    in_space = DIVERGENCES if place.space == PCA else (*MARGINALS, NEIGHBOURS)
    return [name for name in in_space if name in plan.estimators]
