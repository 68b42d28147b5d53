"""The statistics by name, each imported on first use.

A new statistic is one file whose result has ``readings`` and one line here. Another package adds
its own with an entry point of the group ``keygap.statistics`` that names a ``Statistic`` object, or
with ``STATISTICS.register(name, statistic)``.
"""

from __future__ import annotations

from keygap.gap.core.statistic import Statistic
from keygap.registry import Registry

STATISTICS: Registry[Statistic] = Registry(
    "statistic",
    "keygap.statistics",
    {
        "mmd": "keygap.gap.mmd:STATISTIC",
        "jsd": "keygap.gap.jsd:STATISTIC",
        "modality_gap": "keygap.gap.modality_gap:STATISTIC",
        "mir": "keygap.gap.mir:STATISTIC",
        "frechet": "keygap.gap.frechet:STATISTIC",
        "moments": "keygap.gap.moments:STATISTIC",
        "contribution": "keygap.gap.contribution:STATISTIC",
        "spread": "keygap.gap.spread:STATISTIC",
        "c2st": "keygap.gap.c2st:STATISTIC",
        "jsd_histogram_2": "keygap.gap.jsd_histogram:IN_2",
        "jsd_histogram_10": "keygap.gap.jsd_histogram:IN_10",
        "jsd_histogram_50": "keygap.gap.jsd_histogram:IN_50",
    },
)
