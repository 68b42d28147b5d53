"""The rule of ``verdict``: the evidence about one map, and what it decides.

It is made of tests and of bounds, so that "no effect" is claimed only where an effect that matters
is ruled out. Everything else is undecided. ``verdict`` states the rule in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from keygap.align.causes.mediation import EFFECTS, contrasts_of
from keygap.align.causes.paired import Estimate, Outcome
from keygap.align.causes.tables import MODES
from keygap.align.maps import only_shifts

Place = tuple[str, str, str]
Mechanism = Literal["distance", "attention", "both", "neither", "undecided"]
ALPHA = 0.01  # of all effects that are looked at together
BOUND = 0.05  # of each of the two one-sided tests that bound an effect
OF_LARGEST = 0.1  # an effect below this share of the largest is none
OF_SPREAD = 0.25  # so is one below this share of the spread over samples
MIN_SAMPLES = 20
MIN_DRAWS = 5
RANDOM = "random-direction"
SHIFT = "mean-shift"  # as long as which random directions are
AS_MULTIPLIED = "key"  # the site of keys that nothing changes before attention multiplies them
PATHS = ("direct", "attention")
OUTCOME = "hint_margin"
DOSES = ("gap", "image_attention")
EVIDENCE = ("followed", OUTCOME, *DOSES)
_IN_WORDS = {
    "direct": "the direct effect of the keys",
    "attention": "the effect through attention",
}


@dataclass(frozen=True)
class Case:
    """The evidence about one map at one site and set of layers.

    Attributes:
        place: name, site and layers of the map.
        reshaping: the maps that were run and do more than to add one vector to all image keys.
        strengths: the strongest on each side of 0.
        found: by strength and outcome, estimates of ``EFFECTS`` and of the means of ``none`` and
            of the three modes.
        effects: as ``Verdict.effects``.
        random: as ``Verdict.random``.
        smallest: the smallest effect that counts, in nats.
        n: samples that have the outcome.
        n_variants: phrasings of the hint.
    """

    place: Place
    reshaping: tuple[str, ...]
    strengths: tuple[float, ...]
    found: Mapping[tuple[float, str], Mapping[str, Estimate]]
    effects: pd.DataFrame
    random: pd.DataFrame
    smallest: float
    n: int
    n_variants: int

    @classmethod
    def of(
        cls,
        groups: Sequence[Mapping[str, Any]],
        outcomes: Mapping[str, Outcome],
        points: pd.DataFrame,
        none: str,
    ) -> Case:
        """Gather the evidence.

        Args:
            groups: of ``modes_of``, for one map at its strongest strengths.
            outcomes: ``EVIDENCE``, with the points of the groups, the controls and none.
            points: ``POINT_COLUMNS``.
            none: the point without an intervention.
        """
        found = {
            (float(group["strength"]), name): outcome.estimates(
                contrasts_of(group, none)
                | {"none": {none: 1.0}}
                | {mode: {str(group[mode]): 1.0} for mode in MODES}
            )
            for group in groups
            for name, outcome in outcomes.items()
        }
        strengths = tuple(float(group["strength"]) for group in groups)
        outcome = outcomes[OUTCOME]
        spread = outcome.spread(none)
        sizes = [abs(found[at, OUTCOME][name].value) for at in strengths for name in EFFECTS[:3]]
        smallest = max(OF_LARGEST * max(sizes), OF_SPREAD * spread)
        random = _random(groups, outcome, points, none)
        first = groups[0]
        place = (str(first["name"]), str(first["site"]), str(first["layers"]))
        effects = _effects(strengths, found, random, smallest, place)
        names = points.loc[points["kind"] == "map", "name"].unique()
        reshaping = tuple(name for name in names if not shifts(name))
        n = min(found[at, OUTCOME]["total"].n for at in strengths)
        return cls(
            place, reshaping, strengths, found, effects, random, smallest, n, outcome.n_variants
        )

    @property
    def main_strength(self) -> float:
        """The strength at which following changes most, or else the hint margin."""

        def change(at: float) -> tuple[float, float]:
            sizes = [abs(self.found[at, each]["total"].value) for each in ("followed", OUTCOME)]
            followed, margin = np.nan_to_num(sizes)
            return float(followed), float(margin)

        return max(self.strengths, key=change)

    def status(self, path: str) -> str:
        """Whether a path has an effect: the statuses of its effects at all strengths, as one.

        Args:
            path: ``direct`` or ``attention``.
        """
        seen = set(self.effects.loc[self.effects["effect"] == path, "status"])
        order = ("stands", "unclear", "untested", "generic", "absent")
        return next(each for each in order if each in seen)

    def moved(self, dose: str) -> bool:
        """Whether the map changed the gap, or the attention to the image.

        Args:
            dose: of ``DOSES``.
        """
        return any(self.found[at, dose]["total"].p_value <= ALPHA for at in self.strengths)

    def decide(self) -> tuple[Mechanism, str]:
        """The mechanism, and for ``undecided`` the reason."""
        if self.n < MIN_SAMPLES:
            return "undecided", f"{self.n} samples have a hint margin, and {MIN_SAMPLES} are needed"
        if not self.moved("gap"):
            return "undecided", "the map did not move the gap measurably"
        direct, attention = (self.status(path) for path in PATHS)
        if direct == "untested":
            return "undecided", self._why_untested()
        unclear = [_IN_WORDS[path] for path in PATHS if self.status(path) == "unclear"]
        if unclear:
            verb = "are" if len(unclear) > 1 else "is"
            return "undecided", f"{' and '.join(unclear)} {verb} neither shown nor ruled out"
        if direct == "stands":
            return ("both" if attention == "stands" else "distance"), ""
        return ("attention" if attention == "stands" else "neither"), ""

    @property
    def only_shifts(self) -> bool:
        """Whether the map adds one vector to all image keys of a head."""
        return shifts(self.place[0])

    def _why_untested(self) -> str:
        """Why a direct effect is ``untested``."""
        name, site, _ = self.place
        if self.only_shifts and site == AS_MULTIPLIED:
            return (
                f"{name} adds one vector to all image keys as attention multiplies them, so with "
                "attention held it has no effect in any model"
            )
        any_move = f"{_IN_WORDS['direct']} can be that of any displacement of the keys, and"
        if name != SHIFT:
            return (
                f"{any_move} random directions are as long as {SHIFT}, which is not how far {name} "
                "moves them"
            )
        draws = self.random["draw"].nunique()
        return f"{any_move} {draws} random directions were run where {MIN_DRAWS} are needed"


def shifts(name: str) -> bool:
    """Whether a map of a table adds one vector to all image keys of a head.

    Args:
        name: of a kind of map, perhaps with how it was fitted after a comma.
    """
    return only_shifts(name.partition(", ")[0])


def _random(
    groups: Sequence[Mapping[str, Any]], outcome: Outcome, points: pd.DataFrame, none: str
) -> pd.DataFrame:
    """Direct effects of random directions at the place and the strengths of a map."""
    first = groups[0]
    own = points[
        (points["kind"] == "control")
        & (points["name"] == RANDOM)
        & (points["mass"] == "held")
        & (points["site"] == first["site"])
        & (points["layers"] == first["layers"])
    ]
    own = own[own["strength"].abs().isin([abs(group["strength"]) for group in groups])]
    rows = []
    for row in own.to_dict("records"):
        found = outcome.estimates({"direct": {row["point"]: 1.0, none: -1.0}})["direct"]
        rows.append({"strength": float(row["strength"]), "draw": row["draw"], "value": found.value})
    return pd.DataFrame(rows, columns=["strength", "draw", "value"])


def draws_at(random: pd.DataFrame, strength: float) -> np.ndarray:
    """The effects of random directions to compare an effect with.

    The sign of a random direction is arbitrary, so its effect at the opposite strength serves as
    well.

    Args:
        random: as ``Verdict.random``.
        strength: of the map.

    Returns:
        One value per draw: at this strength, or at minus this strength if a draw has no other.
    """
    here = random[random["strength"].abs() == abs(strength)].dropna(subset="value")
    order = np.argsort((here["strength"] != strength).to_numpy(), kind="stable")
    return here.iloc[order].drop_duplicates("draw")["value"].to_numpy(float)


def exceeds(value: float, draws: np.ndarray) -> bool:
    """Whether an effect is larger than those of random directions (rule 3 of ``verdict``).

    Args:
        value: the effect.
        draws: the effects of at least two random directions.
    """
    k = len(draws)
    half = stats.t.ppf(0.975, k - 1) * draws.std(ddof=1) * math.sqrt(1 + 1 / k)
    alike = np.abs(draws[np.sign(draws) == np.sign(value)])
    return bool(abs(value) > alike.max(initial=0.0) and abs(value - draws.mean()) > half)


def _effects(
    strengths: Sequence[float],
    found: Mapping[tuple[float, str], Mapping[str, Estimate]],
    random: pd.DataFrame,
    smallest: float,
    place: Place,
) -> pd.DataFrame:
    """Every effect with its status; p-values are adjusted for the paths at all strengths."""
    rows = []
    for at in strengths:
        for name in EFFECTS:
            each = found[at, OUTCOME][name]
            rows.append(
                {
                    "strength": at, "effect": name, "value": each.value, "ci_low": each.low,
                    "ci_high": each.high, "std_error": each.std_error, "p_value": each.p_value,
                    "p_adjusted": math.nan, "status": "", "n": each.n,
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    paths = frame["effect"].isin(PATHS)
    frame.loc[paths, "p_adjusted"] = (frame.loc[paths, "p_value"] * paths.sum()).clip(upper=1.0)
    frame.loc[paths, "status"] = [
        _status(row, draws_at(random, row["strength"]), smallest, place)
        for row in frame[paths].to_dict("records")
    ]
    return frame


def _status(row: Mapping[Any, Any], draws: np.ndarray, smallest: float, place: Place) -> str:
    """The status of one effect (rules 2 to 4 of ``verdict``)."""
    size, n = abs(row["value"]), row["n"]
    if n < MIN_SAMPLES:
        return "unclear"
    name, site, _ = place
    if row["effect"] == "direct" and shifts(name) and site == AS_MULTIPLIED:
        return "untested"
    if row["p_adjusted"] <= ALPHA and size >= smallest:
        if row["effect"] != "direct":
            return "stands"
        if name != SHIFT or len(draws) < MIN_DRAWS:
            return "untested"
        return "stands" if exceeds(row["value"], draws) else "generic"
    reach = size + stats.t.ppf(1 - BOUND, n - 1) * row["std_error"]
    return "absent" if reach < smallest else "unclear"
