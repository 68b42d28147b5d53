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
from keygap.gap.frechet import gaussian_frechet, weighted_moments
from keygap.gap.inputs import Vectors, as_vectors, check_finite

_SIGMAS = 3.0
_ROUNDING = 1e-10  # of a distance between vectors of unit norm


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
    if not layers:
        raise UserError("no layers given: MIR adds up layers from 1 on")
    distances, replaced_image, replaced_text = [], [], []
    for number, (image, text) in enumerate(layers, start=1):
        values = {"image": as_vectors("image", image), "text": as_vectors("text", text)}
        for name, array in values.items():
            check_finite(f"{name} of layer {number}", array, np.arange(len(array)))
            if len(array) < 2:
                raise UserError(f"{name} of layer {number} has one vector and needs at least two")
        if values["image"].shape[1] != values["text"].shape[1]:
            raise UserError(f"layer {number}: image and text vectors differ in width")
        scale = float(np.linalg.norm(values["text"].astype(np.float64), axis=1).mean())
        if scale == 0.0:
            raise UserError(f"layer {number}: all text vectors are zero, MIR scales by their norm")
        image_clean, n_image = _replace_outliers(values["image"] / scale)
        text_clean, n_text = _replace_outliers(values["text"] / scale)
        replaced_image.append(n_image)
        replaced_text.append(n_text)
        moments = [
            weighted_moments(clean, np.full(len(clean), 1.0 / len(clean)))
            for clean in (image_clean, text_clean)
        ]
        distances.append(sum(gaussian_frechet(*moments[0], *moments[1])))
    total = sum(distances)
    if total <= _ROUNDING:
        raise UserError("image and text vectors are equal in every layer: MIR is log10 of 0")
    return MIRResult(
        float(np.log10(total)), tuple(distances), tuple(replaced_image), tuple(replaced_text)
    )


def _replace_outliers(
    values: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n d"], int]:
    norms = np.linalg.norm(values, axis=1)
    outlier = np.abs(norms - norms.mean()) > _SIGMAS * norms.std()
    return np.where(outlier[:, None], np.median(values, axis=0), values), int(outlier.sum())
