"""What a paper may leave open, and the levels of each such choice.

A choice is one level of every factor. ``Plan`` says which levels are tried; the combinations that
make no sense are left out by the rules in ``RULES``, which are shown with the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from keygap.arguments import distinct, whole
from keygap.errors import UserError, unknown
from keygap.tokens import TEXT_ROLES

FACTORS = (
    "layer", "heads", "text", "outliers", "tokens", "unit", "space", "estimator", "bias", "scale",
)  # fmt: skip
TOGETHER, MEAN, EACH = "together", "mean", "each"
KEPT, WITHOUT_SINKS, WITHOUT_MASSIVE = "kept", "without_sinks", "without_massive"
SAMPLE, TOKEN = "sample", "token"
RAW, STANDARDISED, PCA = "raw", "standardised", "pca_50"
UNBIASED, BIASED = "unbiased", "biased"
MMD_SCALES = ("mmd", "mmd2")
JSD_SCALES = ("nats", "bits", "root")

LAYERS = ("first", "middle", "last", MEAN)
HEADS = (TOGETHER, MEAN, EACH)
OUTLIERS = (KEPT, WITHOUT_SINKS, WITHOUT_MASSIVE)
UNITS = (SAMPLE, TOKEN)
SPACES = (RAW, STANDARDISED, PCA)
TEXTS: dict[str, tuple[str, ...]] = {
    "question": ("question",),
    "user": ("question", "option", "hint"),
    "all": tuple(TEXT_ROLES),
}

GAUSSIANS = ("gaussian_median", "gaussian_grid", "gaussian_1/d", "gaussian_1")
OF_MEDIAN = GAUSSIANS[:2]  # whose bandwidth is the median distance, or a grid around it
KERNELS = (*GAUSSIANS, "linear", "energy")
BINS = (10, 30, 100)
MARGINALS = tuple(f"histogram_{bins}" for bins in BINS)
JOINTS = {f"joint_{dims}_{bins}": (dims, bins) for dims in (2, 50) for bins in BINS}
NEIGHBOURS, CLASSIFIER = "neighbours", "classifier"
DIVERGENCES = (*MARGINALS, *JOINTS, NEIGHBOURS, CLASSIFIER)
ESTIMATORS = (*KERNELS, *DIVERGENCES)

RULES = (
    (
        "bandwidths are tried for the Gaussian kernel only",
        "the linear and the energy kernel have none",
    ),
    (
        "joint histograms and the classifier use principal components",
        "a joint histogram of raw dimensions has more bins than there are atoms, and the "
        "classifier takes principal components whatever it is given",
    ),
    (
        "the JSD is estimated with all heads together",
        "per-dimension histograms read the same for the mean over heads, and the others cost "
        "seconds for each head; keygap measure gives the JSD of each head",
    ),
    (
        "biased and unbiased are estimators of the MMD",
        "a JSD has no such pair of estimators",
    ),
    (
        "a level that selects the same vectors as the level before it is left out",
        "it would count one choice twice, such as user text that is all question",
    ),
)


@dataclass(frozen=True)
class Plan:
    """Which levels of every factor are tried, and in how many groups samples are left out.

    Attributes:
        layers: ``first``, ``middle``, ``last``, ``mean`` (over all layers of the store).
        heads: ``together`` (concatenated), ``mean`` (of the numbers of all heads), ``each``.
        text: ``question``, ``user`` (question, options and hint), ``all``.
        outliers: ``kept``, ``without_sinks``, ``without_massive`` (dimensions).
        tokens: numbers of image tokens, with as many text tokens.
        units: ``sample`` (samples weigh the same and halves are halves of the samples) or
            ``token`` (tokens as if they were independent).
        spaces: ``raw``, ``standardised``, ``pca_50``.
        estimators: those of ``KERNELS`` for the MMD, and of ``DIVERGENCES`` for the JSD.
        n_groups: groups of samples; intervals come from leaving each out in turn. All choices
            share their number, so there are at most half as many as the smallest selection has
            samples.
    """

    layers: Sequence[str] = LAYERS
    heads: Sequence[str] = HEADS
    text: Sequence[str] = tuple(TEXTS)
    outliers: Sequence[str] = OUTLIERS
    tokens: Sequence[int] = (200, 1000, 5000)
    units: Sequence[str] = UNITS
    spaces: Sequence[str] = SPACES
    estimators: Sequence[str] = ESTIMATORS
    n_groups: int = 50

    def __post_init__(self) -> None:
        """Refuse levels that do not exist.

        Raises:
            UserError: a level is unknown or given twice, a factor has none, or a number is out of
                range.
        """
        known = {
            "layers": LAYERS, "heads": HEADS, "text": tuple(TEXTS), "outliers": OUTLIERS,
            "units": UNITS, "spaces": SPACES, "estimators": ESTIMATORS,
        }  # fmt: skip
        for field in fields(self):
            if field.name == "n_groups":
                continue
            levels = tuple(distinct(getattr(self, field.name), field.name, "one level"))
            if not levels:
                raise UserError(f"{field.name} is empty: give at least one level")
            for level in levels:
                if field.name == "tokens":
                    whole(level, "tokens", 20)
                elif level not in known[field.name]:
                    raise unknown(f"level of {field.name}", level, known[field.name])
            object.__setattr__(self, field.name, levels)
        whole(self.n_groups, "n_groups", 4, 10_000)

    def as_settings(self) -> dict[str, Any]:
        """The levels as plain values, for ``choices.yaml``."""
        return {
            name: value if isinstance(value, int) else list(value)
            for name, value in vars(self).items()
        }
