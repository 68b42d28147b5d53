"""Two-sample statistics of one contrast: functions of arrays and sample ids with frozen results.

Vectors of one sample are not independent. Every test and every interval here resamples whole
samples, and all samples of a side have the same weight.
"""

from keygap.gap.c2st import C2STResult, c2st
from keygap.gap.contribution import ContributionResult, contribution
from keygap.gap.core.holm import holm
from keygap.gap.core.reading import Reading
from keygap.gap.core.sides import Sides
from keygap.gap.core.statistic import Result, Statistic
from keygap.gap.frechet import FrechetResult, frechet
from keygap.gap.jsd import JSDProfile, JSDResult, jsd, jsd_profile
from keygap.gap.jsd_histogram import HistogramJSDResult, jsd_histogram
from keygap.gap.jsd_marginals import MarginalsJSDResult, jsd_marginals
from keygap.gap.jsd_neighbours import NeighboursJSDResult, jsd_neighbours
from keygap.gap.mir import MIRLayer, MIRResult, mir, mir_layer, mir_of
from keygap.gap.mmd import MMDResult, mmd
from keygap.gap.modality_gap import ModalityGapResult, modality_gap
from keygap.gap.moments import MomentsResult, moments
from keygap.gap.ratio import RatioResult, mmd_ratio
from keygap.gap.registry import STATISTICS
from keygap.gap.spread import SpreadResult, spread

__all__ = [
    "STATISTICS",
    "C2STResult",
    "ContributionResult",
    "FrechetResult",
    "HistogramJSDResult",
    "JSDProfile",
    "JSDResult",
    "MIRLayer",
    "MIRResult",
    "MMDResult",
    "MarginalsJSDResult",
    "ModalityGapResult",
    "MomentsResult",
    "NeighboursJSDResult",
    "RatioResult",
    "Reading",
    "Result",
    "Sides",
    "SpreadResult",
    "Statistic",
    "c2st",
    "contribution",
    "frechet",
    "holm",
    "jsd",
    "jsd_histogram",
    "jsd_marginals",
    "jsd_neighbours",
    "jsd_profile",
    "mir",
    "mir_layer",
    "mir_of",
    "mmd",
    "mmd_ratio",
    "modality_gap",
    "moments",
    "spread",
]
