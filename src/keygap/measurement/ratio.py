"""The ratio of a gap between modalities to the highest contrast inside one modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keygap import gap
from keygap.measurement.views import RATIO


@dataclass(frozen=True)
class Comparison:
    """One contrast, with or without a confound, at one site, layer and head.

    Attributes:
        key: the columns that say what was compared, ``contrast``, ``rung``, ``confound`` and
            ``head`` among them.
        mmd: its MMD, with the values that leave out one sample each.
    """

    key: dict[str, Any]
    mmd: gap.MMDResult


def ratio_to_highest(own: Comparison, others: Sequence[Comparison]) -> gap.Reading | None:
    """Compare a gap with the contrast of rung ``kind`` that has the largest MMD squared.

    Only contrasts of the same head count that share samples with the gap, since the interval of
    the ratio leaves the same sample out of both.

    Args:
        own: the comparison whose ratio is wanted.
        others: all comparisons of its site and layer.

    Returns:
        The ratio, with the contrast it refers to as the setting ``highest``; None if there is no
        such contrast or no gap.
    """
    rivals = [
        other
        for other in others
        if other.key["rung"] == "kind"
        and other.key["confound"] == ""
        and other.key["head"] == own.key["head"]
        and other.mmd.mmd2 > 0
        and own.mmd.without.keys() & other.mmd.without.keys()
    ]
    if not rivals or own.mmd.mmd2 <= 0:
        return None
    highest = max(rivals, key=lambda other: other.mmd.mmd2)
    found = gap.mmd_ratio(own.mmd, highest.mmd)
    return gap.Reading(
        RATIO,
        found.ratio,
        "MMD squared over that of the highest contrast inside one modality",
        ci=found.ci,
        settings={"highest": highest.key["contrast"], "level": found.level},
    )
