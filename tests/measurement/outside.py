"""What another package adds to keygap: a statistic and a contrast between modalities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keygap.contrasts.contrast import Contrast
from keygap.gap import Reading, Statistic


@dataclass(frozen=True)
class NormRatio:
    """Mean length of the first side's vectors over that of the second."""

    ratio: float
    widths: tuple[float, float]

    @property
    def readings(self) -> tuple[Reading, ...]:
        what = "mean length of a vector"
        return (
            Reading("norm_ratio", self.ratio, "mean length, first side over second"),
            Reading("norm", self.widths[0], what, side="x"),
            Reading("norm", self.widths[1], what, side="y"),
        )


def norm_ratio(x, y, sides) -> NormRatio:
    first, second = (float(np.linalg.norm(side, axis=1).mean()) for side in (x, y))
    return NormRatio(first / second, (first, second))


NORM_RATIO = Statistic("ratio of mean lengths", norm_ratio, coordinates="raw", scope="ladder")


def image_template(labels, roles, seed):
    """Image tokens, template tokens: as image_caption would select a caption."""
    image = (labels["modality"] == "image").to_numpy()
    return image, (labels["role"] == "template").to_numpy()


IMAGE_TEMPLATE = Contrast(
    name="image_template",
    what="image tokens, template tokens",
    select=image_template,
    rung="between",
    pairing="within",
    with_confounds=True,
    sides=("image", "template"),
)
