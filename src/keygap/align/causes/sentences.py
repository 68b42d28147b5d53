"""A verdict in plain sentences: what moved, by how much, why, and what does not follow."""

from __future__ import annotations

from collections.abc import Mapping

from keygap.align.causes.paired import Estimate
from keygap.align.causes.rule import (
    MIN_DRAWS,
    OUTCOME,
    SHIFT,
    Case,
    Mechanism,
    Place,
    draws_at,
)

_HEADLINES = {
    "distance": (
        "In {model}, the distance between image keys and text keys moves the answers by itself, "
        "and the amount of attention to the image does not."
    ),
    "attention": (
        "In {model}, moved keys change the answers through the amount of attention to the image; "
        "their distance from the text keys does not by itself."
    ),
    "both": (
        "In {model}, the distance between image keys and text keys and the amount of attention to "
        "the image each move the answers."
    ),
    "neither": (
        "In {model}, neither the distance between image keys and text keys nor the amount of "
        "attention to the image moves the answers."
    ),
    "undecided": "In {model}, it is undecided what moves the answers: {why}.",
}
_OF_SHIFTS = {  # they say nothing about distance: with attention held, a shift can hardly act
    "attention": (
        "In {model}, shifted keys change the answers through the amount of attention to the image."
    ),
    "neither": (
        "In {model}, neither shifted keys nor the amount of attention to the image changes the "
        "answers."
    ),
}
_STATUS = {
    "stands": "which stands",
    "absent": "which is too small to count",
    "unclear": "which is neither shown nor ruled out",
    "generic": "which is no larger than that of random directions",
    "untested": "for which no control was run",
}


def no_map(model: str) -> tuple[str, ...]:
    """The verdict where there is nothing to decide from.

    Args:
        model: how sentences name the model.
    """
    why = "no map was run free, with attention held, and with only attention changed"
    return (_HEADLINES["undecided"].format(model=model, why=why),)


def sentences(case: Case, others: Mapping[Place, Mechanism], model: str) -> tuple[str, ...]:
    """All sentences of a verdict.

    Args:
        case: the evidence about the map that decides.
        others: the mechanism by the same rule for other maps.
        model: how sentences name the model.
    """
    mechanism, why = case.decide()
    headlines = _HEADLINES | _OF_SHIFTS if case.only_shifts else _HEADLINES
    headline = headlines[mechanism].format(model=model, why=why)
    if case.n < 2:  # no effect has an interval
        return (headline,)
    said = [
        headline,
        *(_algebra(case) if case.only_shifts else ()),
        _dose(case),
        _following(case),
        *(_margins(case, at) for at in case.strengths),
        _random(case),
        f"Effects below {number(case.smallest)} nats do not count: that is a tenth of the largest "
        "effect of the map, or a quarter of the standard deviation over samples if this is larger.",
        _does_not_follow(case, mechanism),
    ]
    if case.status("direct") == "generic":
        said.append(
            "Moved keys do change the answers with attention held, but random directions of the "
            "same norm do so as much, so this is no evidence that distance matters."
        )
    if mechanism != "undecided":
        said.append("Other samples, texts and models were not tested.")
    if not case.moved("image_attention"):
        said.append(
            "The map did not change the attention to the image measurably, so nothing is learnt "
            "about attention."
        )
    if others:
        said.append(_others(others))
    return tuple(filter(None, said))


def number(value: float) -> str:
    """A number with two decimals; one that rounds to zero has no sign."""
    text = f"{value:.2f}"
    return text if float(text) else text.removeprefix("-")


def _with_interval(found: Estimate) -> str:
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def _label(place: Place) -> str:
    name, site, layers = place
    return f"{name} of {site} at {layers} layers"


def _algebra(case: Case) -> tuple[str, str]:
    """What a shift can do at all, and which maps that were run do more."""
    follows = (
        "an effect with attention held is one of norm and rotary embedding alone"
        if case.status("direct") in ("stands", "generic")
        else "the absence of an effect with attention held is what algebra predicts and no "
        "evidence about other ways of moving keys"
    )
    how = (
        "A shift of all image keys by one vector can act on a layer's output only through the "
        "total attention to the image (exactly so where no norm or rotary embedding follows, else "
        f"up to what these make of the vector at each position), so {follows}."
    )
    if not case.reshaping:
        return how, "No map that also moves image keys relative to each other was run."
    return how, (
        "Of the maps that were run, these also move image keys relative to each other: "
        f"{', '.join(case.reshaping)}."
    )


def _dose(case: Case) -> str:
    at = case.main_strength
    parts = []
    for dose, words in (
        ("gap", "the distance between image keys and text keys"),
        ("image_attention", "the attention to the image"),
    ):
        found = case.found[at, dose]
        before, after = number(found["none"].value), number(found["free"].value)
        change = _with_interval(found["total"])
        parts.append(f"{words} from {before} to {after}, a change of {change}")
    return (
        f"{_label(case.place)}, at strength {at:g}, takes {parts[0]}, and {parts[1]} "
        f"(95 % intervals over {case.n} samples)."
    )


def _following(case: Case) -> str:
    found = case.found[case.main_strength, "followed"]
    if not found["total"].n:
        return ""
    return (
        f"The wrong hint, in {case.n_variants} phrasings, is then followed in "
        f"{number(found['free'].value)} of answers instead of {number(found['none'].value)}, a "
        f"change of {_with_interval(found['total'])}; with each query's attention to the image "
        f"held the change is {_with_interval(found['direct'])}, and with only that attention "
        f"changed it is {_with_interval(found['attention'])}."
    )


def _margins(case: Case, at: float) -> str:
    """The effects on the hint margin at one strength."""
    found = case.found[at, OUTCOME]
    own = case.effects[case.effects["strength"] == at].set_index("effect")["status"]
    return (
        f"At strength {at:g} the log-probability of the suggested answer minus that of the right "
        f"answer changes by {_with_interval(found['total'])} nats in total; the direct effect of "
        f"the keys is {_with_interval(found['direct'])}, {_STATUS[own['direct']]}, and the effect "
        f"through attention {_with_interval(found['attention'])}, {_STATUS[own['attention']]}."
    )


def _random(case: Case) -> str:
    if case.place[0] != SHIFT:
        return ""
    draws = draws_at(case.random, case.main_strength)
    if not len(draws):
        return f"No random direction of the same norm was run; {MIN_DRAWS} are needed."
    ends = f"{number(draws.min())} to {number(draws.max())}"
    return (
        f"With attention held, {len(draws)} random directions of the same norm change the hint "
        f"margin by {ends} nats."
    )


def _does_not_follow(case: Case, mechanism: Mechanism) -> str:
    smallest = number(case.smallest)
    match mechanism:
        case "distance":
            return (
                "It does not follow that attention plays no part: with its amount held it may "
                "still be distributed differently among image tokens, and this counts as an effect "
                "of the keys."
            )
        case "attention":
            return (
                f"It does not follow that distance has no effect at all: one below {smallest} nats "
                "is not excluded, nor one at distances that no map here reached."
            )
        case "both":
            found = case.found[case.main_strength, OUTCOME]["interaction"]
            return (
                "It does not follow that the two effects add up: their interaction is "
                f"{_with_interval(found)} nats at strength {case.main_strength:g}."
            )
        case "neither":
            return (
                "It does not follow that the two never matter: effects below "
                f"{smallest} nats are not excluded, nor effects of larger changes than these."
            )
    return "It does not follow that there is no effect."


def _others(others: Mapping[Place, Mechanism]) -> str:
    by_mechanism: dict[str, list[str]] = {}
    for place, mechanism in others.items():
        by_mechanism.setdefault(mechanism, []).append(_label(place))
    parts = [f"{name!r} for {'; '.join(places)}" for name, places in by_mechanism.items()]
    return f"The same rule gives {', and '.join(parts)}."
