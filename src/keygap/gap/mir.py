"""Modality Integration Rate (MIR) of image and text vectors over the layers of a model.

    MIR = log10 of the sum over layers >= 1 of the Frechet distance between image and text

Before that, the vectors of a layer are divided by the mean text norm, and vectors whose norm lies
beyond three standard deviations of the norms of their side are replaced by the median vector of the
side. Huang et al. 2024 (arXiv 2410.07167, ICCV 2025) use hidden states; here any site can be given.
As published, tokens have equal weight and there is no null: MIR compares models and tests nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, as_vectors, check_finite
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic
from keygap.gap.core.weights import weighted_moments
from keygap.gap.frechet import gaussian_frechet

_SIGMAS = 3.0
_ROUNDING = 1e-10  # of a distance between vectors of unit norm


@dataclass(frozen=True, repr=False)
class MIRLayer(Described, title="Modality integration rate, one layer"):
    """What one layer adds to MIR.

    Attributes:
        distance: Frechet distance, in squared units of the mean text norm.
        replaced_image: Number of image vectors that were replaced as outliers.
        replaced_text: Number of text vectors that were replaced.
    """

    distance: float
    replaced_image: int
    replaced_text: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``mir_distance``, the distance of this layer."""
        what = "Frechet distance in squared units of the mean text norm, outliers replaced"
        return (Reading("mir_distance", self.distance, f"{what}: a part of MIR"),)


@dataclass(frozen=True, repr=False)
class MIRResult(Described, title="Modality integration rate over layers"):
    """MIR and what each layer adds to it.

    Attributes:
        mir: Log10 of the sum of the distances, without a unit.
        by_layer: Frechet distance of each layer.
        replaced_image: Number of image vectors of each layer that were replaced as outliers.
        replaced_text: Number of text vectors of each layer that were replaced.
    """

    mir: float
    by_layer: tuple[float, ...]
    replaced_image: tuple[int, ...]
    replaced_text: tuple[int, ...]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``mir`` and the distance of each layer."""
        part = "Frechet distance of this layer, squared units of the mean text norm: a part of MIR"
        return (
            Reading("mir", self.mir, "log10 of the sum of the distances of all layers, no unit"),
            *(
                Reading(f"mir_distance of layer {number}", distance, part)
                for number, distance in enumerate(self.by_layer, start=1)
            ),
        )


def mir(layers: Sequence[tuple[Array, Array]]) -> MIRResult:
    """MIR over several layers. O(layers ((n + m) d^2 + d^3)).

    Args:
        layers: Image vectors (n, d) and text vectors (m, d) of each layer, starting with layer 1.

    Returns:
        MIR and its parts.

    Raises:
        UserError: There are no layers, a side has bad vectors or fewer than two, all text vectors
            are zero, or the sides are equal in every layer.
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


def mir_layer(image: Array, text: Array, layer: str = "this layer") -> MIRLayer:
    """What one layer adds to MIR, for models whose layers do not fit in memory together.

    Its cost is O((n + m) d^2 + d^3).

    Args:
        image: Image vectors, shape (n, d).
        text: Text vectors, shape (m, d).
        layer: Name of the layer in an error message.

    Returns:
        The distance of the layer.

    Raises:
        UserError: As ``mir``.
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
        raise UserError(f"{layer}: all text vectors are zero, and MIR divides by their norm")
    image_clean, n_image = _replace_outliers(values["image"] / scale)
    text_clean, n_text = _replace_outliers(values["text"] / scale)
    distance = sum(gaussian_frechet(*_moments(image_clean), *_moments(text_clean)))
    return MIRLayer(distance, n_image, n_text)


def mir_of(distances: Sequence[float]) -> float:
    """MIR from the distances of the layers: log10 of their sum.

    Args:
        distances: ``MIRLayer.distance`` of each layer from layer 1 on.

    Returns:
        MIR, without a unit.

    Raises:
        UserError: There are no distances, or all of them are zero.
    """
    if not distances:
        raise UserError("no layers given: MIR adds up layers from 1 on")
    if sum(distances) <= _ROUNDING:
        raise UserError("image and text vectors are equal in every layer: MIR is log10 of 0")
    return float(np.log10(sum(distances)))


def _moments(
    values: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    return weighted_moments(values, np.full(len(values), 1.0 / len(values)))


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
