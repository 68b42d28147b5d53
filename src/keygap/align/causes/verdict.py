"""Which mechanism moves the answers of a model: the distance between keys, or attention?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from keygap.align.causes.mediation import modes_of, unsteered
from keygap.align.causes.paired import Outcome
from keygap.align.causes.rule import EVIDENCE, Case, Mechanism
from keygap.align.causes.sentences import no_map, sentences
from keygap.align.causes.tables import MODES, strongest
from keygap.display import as_html, brief
from keygap.errors import unknown


@dataclass(frozen=True, repr=False)
class Verdict:
    """The mechanism of one model, with the reasons.

    Attributes:
        mechanism: ``distance``, ``attention``, ``both``, ``neither`` or ``undecided``.
        sentences: what moved and by how much, why this is the verdict, and what does not follow.
        decides: name, site and layers of the map that decides; empty if none can.
        effects: the effects on the hint margin, one row per strength and effect: ``strength``,
            ``effect``, ``value``, ``ci_low``, ``ci_high`` (95 %), ``std_error``, ``p_value``,
            ``p_adjusted`` and ``status`` (of the two paths alone) and ``n``. A ``status`` is
            ``stands``, ``absent`` or ``unclear``, or of a direct effect ``generic`` (no larger than
            that of random directions) or ``untested`` (no control for it was run).
        smallest: the smallest effect that counts, in nats.
        random: direct effects of random directions, one row per ``strength`` and ``draw``.
        others: the mechanism by the same rule for every other map, by its name, site and layers.
    """

    mechanism: Mechanism
    sentences: tuple[str, ...]
    decides: tuple[str, ...] = ()
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    smallest: float = float("nan")
    random: pd.DataFrame = field(default_factory=pd.DataFrame)
    others: Mapping[tuple[str, str, str], Mechanism] = field(default_factory=dict)

    def __str__(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(self.sentences)

    def __repr__(self) -> str:
        return brief(f"Verdict({self.mechanism}: {self})")

    def _repr_html_(self) -> str:
        caption = (
            f"Mechanism: {self.mechanism}. Effects on the hint margin in nats, with 95 % intervals "
            f"over n samples; an effect of at least {self.smallest:.2g} nats counts."
        )
        return as_html(caption, self.effects, self.sentences)


def verdict(
    samples: pd.DataFrame,
    points: pd.DataFrame,
    *,
    model: str = "the model",
    name: str | None = None,
    site: str | None = None,
    layers: str | None = None,
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Name the mechanism by which moved keys change how far a model follows a wrong hint.

    The outcome is the hint margin: the log-probability of the suggested minus that of the right
    answer, in nats. The effects looked at are the direct effect of the keys and the effect through
    attention (see ``mediation``), at the strongest strength of the map on each side of 0.

    1. The smallest effect that counts is a tenth of the largest effect of the map (total effects
       included), and at least a quarter of the standard deviation of the outcome over samples.
    2. An effect *stands* if its p-value is at most 0.01 (Student's t over samples, adjusted by
       Bonferroni for all effects looked at) and its size is at least the smallest that counts.
    3. A *direct* effect stands only if it is also larger than what random directions of the same
       norm do with attention held: larger than each of at least five draws whose effect has the
       same sign, and outside of the 95 % prediction interval of all draws (Student's t over draws).
       Otherwise it is *generic*: any displacement of the keys would do as much. It is *untested*
       with fewer draws, and for maps other than the mean shift, whose norm the draws have. That of
       a shift of ``key`` is untested in any case: it is 0 by algebra.
    4. An effect is *absent* if two one-sided tests at 0.05 (Schuirmann 1987) place it between plus
       and minus the smallest effect that counts. All else is *unclear*.
    5. A path stands if its effect stands at any strength. It is absent if its effect is absent (or
       generic) at all of them.

    One vector that is added to all image keys of a head changes all image logits of a query by the
    same number, and holding attention takes that number back. So a map that only shifts has a
    direct effect only through what norm and rotary embedding make of the vector. A sentence says
    so.

    The mechanism is ``distance`` if the direct effect stands and that through attention is absent,
    ``attention`` the other way round, ``both`` if both stand and ``neither`` if both are absent. It
    is ``undecided`` otherwise, and where fewer than 20 samples have the outcome, no map has all
    three modes, or the map did not move the gap (p above 0.01 at every strength).

    Args:
        samples: ``SAMPLE_COLUMNS`` of a ``CausesTable`` of one model.
        points: its ``POINT_COLUMNS``.
        model: how sentences name the model.
        name: the map that decides; by default the first that has all three modes.
        site: its site; by default the first.
        layers: its set of layers; by default the first.
        n_bootstraps: resamplings of whole samples, for the intervals that sentences give.
        seed: of the resamplings.

    Raises:
        UserError: no map with all three modes has this name, site or set of layers.
    """
    maps: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for group in modes_of(strongest(points)):
        maps.setdefault((group["name"], group["site"], group["layers"]), []).append(group)
    asked = {"map": name, "site": site, "set of layers": layers}
    left = list(maps)
    for place, (kind, wanted) in enumerate(asked.items()):
        if wanted is not None and wanted not in (known := {key[place] for key in left}):
            raise unknown(kind, wanted, sorted(known), "run free, held and only")
        left = [key for key in left if wanted in (None, key[place])]
    if not left:
        return Verdict("undecided", no_map(model))
    none = unsteered(points)
    wanted_points = {none, *points.loc[points["kind"] == "control", "point"]}
    wanted_points |= {group[mode] for own in maps.values() for group in own for mode in MODES}
    used = samples[samples["point"].isin(wanted_points)]
    outcomes = {each: Outcome.of(used, each, n_bootstraps, seed) for each in EVIDENCE}
    cases = {key: Case.of(groups, outcomes, points, none) for key, groups in maps.items()}
    case = cases[left[0]]
    others = {key: each.decide()[0] for key, each in cases.items() if key != left[0]}
    mechanism, _ = case.decide()
    said = sentences(case, others, model)
    return Verdict(mechanism, said, left[0], case.effects, case.smallest, case.random, others)
