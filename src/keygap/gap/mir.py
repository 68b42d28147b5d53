"""Modality Integration Rate (MIR) of image and text vectors over the layers of a model.

    MIR = log10 of the sum over layers >= 1 of the Frechet distance between image and text

after scaling each layer's vectors by 1 / mean text norm and replacing vectors whose norm lies
beyond three standard deviations of its side's norms by the side's median vector. Huang et al. 2024
(arXiv 2410.07167, ICCV 2025), there on hidden states, here on whatever site is given. Tokens weigh
the same and it has no null, as published: it compares models, it does not test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.inputs import Vectors, as_vectors, check_finite
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic
from keygap.gap.frechet import gaussian_frechet, weighted_moments

_SIGMAS = 3.0
_ROUNDING = 1e-10  # of a distance between vectors of unit norm


@dataclass(frozen=True)
class MIRLayer:
    """What one layer adds to MIR: a Frechet distance in units of the mean text norm, squared."""

    distance: float
    replaced_image: int  # outliers
    replaced_text: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The distance."""
        what = "Frechet distance in units of the mean text norm, outliers replaced: a part of MIR"
        return (Reading("mir_distance", self.distance, what),)


@dataclass(frozen=True)
class MIRResult:
    """MIR (log10, no unit) and the Frechet distance of every layer that it adds up."""

    mir: float
    by_layer: tuple[float, ...]
    replaced_image: tuple[int, ...]  # outliers of each layer
    replaced_text: tuple[int, ...]


def mir(layers: Sequence[tuple[Vectors, Vectors]]) -> MIRResult:
    """MIR of (image vectors, text vectors) of each layer, the first one being layer 1.

    Raises UserError: no layers, bad vectors, fewer than two vectors on a side, text vectors that
    are all zero, sides that are equal in every layer. O(layers ((n + m) d^2 + d^3)).
    """
    found = [
        mir_layer(image, text, f"layer {number}")
        for number, (image, text) in enumerate(layers, start=1)
    ]
    return MIRResult(
        mir_of([layer.distance for layer in found]),
        tuple(layer.distance for layer in found),
        tuple(layer.replaced_image for layer in found),
        tuple(layer.replaced_text for layer in found),
    )


def mir_layer(image: Vectors, text: Vectors, layer: str = "this layer") -> MIRLayer:
    """What one layer adds to MIR; `layer` is its name in an error. O((n + m) d^2 + d^3).

    For models whose layers do not fit in memory together. Raises as `mir`.
    """
    values = {"image": as_vectors("image", image), "text": as_vectors("text", text)}
    for name, array in values.items():
        check_finite(f"{name} of {layer}", array, np.arange(len(array)))
        if len(array) < 2:
            raise UserError(f"{name} of {layer} has one vector and needs at least two")
    if values["image"].shape[1] != values["text"].shape[1]:
        raise UserError(f"{layer}: image and text vectors differ in width")
    scale = float(np.linalg.norm(values["text"].astype(np.float64), axis=1).mean())
    if scale == 0.0:
        raise UserError(f"{layer}: all text vectors are zero, MIR scales by their norm")
    image_clean, n_image = _replace_outliers(values["image"] / scale)
    text_clean, n_text = _replace_outliers(values["text"] / scale)
    moments = [
        weighted_moments(clean, np.full(len(clean), 1.0 / len(clean)))
        for clean in (image_clean, text_clean)
    ]
    return MIRLayer(sum(gaussian_frechet(*moments[0], *moments[1])), n_image, n_text)


def mir_of(distances: Sequence[float]) -> float:
    """MIR of the distances of the layers: log10 of their sum.

    Raises UserError: none given, or all of them zero.
    """
    if not distances:
        raise UserError("no layers given: MIR adds up layers from 1 on")
    if sum(distances) <= _ROUNDING:
        raise UserError("image and text vectors are equal in every layer: MIR is log10 of 0")
    return float(np.log10(sum(distances)))


def _replace_outliers(
    values: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n d"], int]:
    norms = np.linalg.norm(values, axis=1)
    outlier = np.abs(norms - norms.mean()) > _SIGMAS * norms.std()
    return np.where(outlier[:, None], np.median(values, axis=0), values), int(outlier.sum())


STATISTIC = Statistic(
    what="what one layer adds to the Modality Integration Rate",
    compute=lambda x, y, sides: mir_layer(x, y),
    coordinates="raw",
)
