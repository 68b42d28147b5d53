"""The verdict: planted mechanisms are named, and sentences say what the numbers say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from align.causes.handmade import planned
from align.causes.simulated import (
    MECHANISMS,
    Model,
    causes_table,
    few_points,
    point,
    simulate,
)
from keygap.align.causes.rule import exceeds
from keygap.align.causes.verdict import Verdict, verdict

GOLDEN = Path(__file__).parent / "golden"
PLANS: dict[str, dict[str, Any]] = {
    "distance": {"direct": 2.0, "attention": 0.0},
    "attention": {"direct": 0.0, "attention": 2.0},
    "both": {"direct": 2.0, "attention": 1.5},
    "neither": {"direct": 0.0, "attention": 0.0},
    "undecided": {"direct": 0.3, "attention": 2.0, "deviation": 1.2},
}


@pytest.mark.parametrize("mechanism", PLANS)
def test_the_sentences_of_each_verdict(mechanism):
    found = verdict(*planned(**PLANS[mechanism]), model="made:model")
    assert found.mechanism == mechanism
    assert list(found.sentences) == (GOLDEN / f"{mechanism}.txt").read_text().splitlines()
    assert str(found) == " ".join(found.sentences)


def statuses(found: Verdict, effect: str) -> list[str]:
    return found.effects.loc[found.effects["effect"] == effect, "status"].tolist()


def said(found: Verdict, text: str) -> bool:
    return any(text in sentence for sentence in found.sentences)


def test_effects_are_those_that_were_planned():
    found = verdict(*planned(direct=2.0, attention=1.5))
    values = found.effects.set_index(["strength", "effect"])["value"]
    for strength in (-1.0, 1.0):
        expected = {"total": 3.5, "direct": 2.0, "attention": 1.5, "interaction": 0.0}
        for name, value in expected.items():
            assert values[strength, name] == pytest.approx(strength * value, abs=1e-9)
    assert found.smallest == pytest.approx(0.35)
    assert found.random["value"].tolist() == pytest.approx([-0.2, -0.1, 0.0, 0.1, 0.2], abs=1e-9)


def test_p_values_are_adjusted_over_both_paths_and_strengths():
    found = verdict(*planned(direct=0.3, attention=2.0, deviation=1.2)).effects
    tested = found[found["effect"].isin(["direct", "attention"])]
    expected = np.minimum(1, 4 * tested["p_value"].to_numpy())
    assert tested["p_adjusted"].to_numpy() == pytest.approx(expected)
    assert found.loc[found["effect"] == "total", "p_adjusted"].isna().all()


def test_a_direct_effect_no_larger_than_that_of_random_directions_is_not_of_distance():
    found = verdict(*planned(direct=2.0, attention=0.0, random=1.5))
    assert found.mechanism == "neither"
    assert statuses(found, "direct") == ["generic", "generic"]
    assert said(found, "random directions of the same norm do so as much")
    through = verdict(*planned(direct=2.0, attention=1.5, random=1.5))
    assert through.mechanism == "attention"


@pytest.mark.parametrize("draws", [0, 4])
def test_distance_needs_five_random_directions(draws):
    found = verdict(*planned(direct=2.0, attention=0.0, draws=draws))
    assert found.mechanism == "undecided"
    assert f"{draws} random directions were run where 5 are needed" in found.sentences[0]
    assert verdict(*planned(direct=0.0, attention=2.0, draws=draws)).mechanism == "attention"


def test_a_shift_of_keys_as_multiplied_is_not_tested_by_holding_attention():
    for direct in (0.0, 2.0):  # the second is not possible in a model
        samples, points = planned(direct=direct, attention=2.0)
        at_key = points.assign(site=points["site"].replace("k_proj", "key"))
        found = verdict(samples, at_key)
        assert found.mechanism == "undecided"
        assert statuses(found, "direct") == ["untested", "untested"]
        assert statuses(found, "attention") == ["stands", "stands"]
        assert "with attention held it has no effect in any model" in found.sentences[0]


def test_what_a_shift_cannot_show_is_said_with_the_maps_that_could():
    samples, points = planned(direct=0.0, attention=2.0)
    found = verdict(samples, points)
    assert "distance" not in found.sentences[0]
    assert "what algebra predicts and no evidence" in found.sentences[1]
    assert said(found, "No map that also moves image keys relative to each other was run")
    more = [point("map", name, "k_proj", "all", 1.0, "free") for name in ("norms", "coral")]
    found = verdict(samples, pd.concat([points, pd.DataFrame(more)]))
    assert said(found, "also move image keys relative to each other: norms, coral.")
    other = verdict(samples, points.assign(name=points["name"].replace("mean-shift", "coral")))
    assert other.mechanism == "attention"
    assert not said(other, "algebra")
    assert "distance from the text keys does not by itself" in other.sentences[0]


@pytest.mark.parametrize("name", ["coral", "norms", "mean-shift, layer by layer"])
def test_random_directions_are_compared_with_the_shift_that_is_as_long(name):
    samples, points = planned(direct=2.0, attention=0.0)
    found = verdict(samples, points.assign(name=points["name"].replace("mean-shift", name)))
    assert found.mechanism == "undecided"
    assert statuses(found, "direct") == ["untested", "untested"]
    assert f"as long as mean-shift, which is not how far {name} moves them" in found.sentences[0]
    assert not said(found, "of the same norm")


def test_an_effect_of_less_than_a_tenth_of_the_largest_does_not_count():
    found = verdict(*planned(direct=0.5, attention=8.0))
    assert found.smallest == pytest.approx(0.85)
    assert found.effects["p_adjusted"].max() < 0.01  # it is there, and too small
    assert found.mechanism == "attention"
    assert verdict(*planned(direct=1.0, attention=8.0)).mechanism == "both"


def test_too_few_samples_decide_nothing():
    found = verdict(*planned(direct=2.0, attention=0.0, n=12))
    assert found.mechanism == "undecided"
    assert "12 samples have a hint margin, and 20 are needed" in found.sentences[0]
    assert set(statuses(found, "direct")) == {"unclear"}


def test_a_map_that_leaves_the_gap_alone_decides_nothing():
    found = verdict(*planned(direct=2.0, attention=0.0, gap_moves=0.0))
    assert found.mechanism == "undecided"
    assert "did not move the gap" in found.sentences[0]


def test_attention_that_did_not_change_is_said():
    unchanged = verdict(*planned(direct=2.0, attention=0.0, attention_moves=0.0))
    assert said(unchanged, "nothing is learnt about attention")
    assert not said(verdict(*planned(direct=2.0, attention=0.0)), "nothing is learnt")


def test_generated_answers_have_no_margin_to_decide_from():
    samples, points = planned(direct=2.0, attention=0.0)
    found = verdict(samples.assign(hint_margin=np.nan), points, model="m")
    assert found.sentences == (
        "In m, it is undecided what moves the answers: 0 samples have a hint margin, and 20 are "
        "needed.",
    )


def test_without_the_three_modes_nothing_is_decided():
    samples, points = planned(direct=2.0, attention=0.0)
    found = verdict(samples, points[points["mass"] != "only"])
    assert (found.mechanism, found.decides) == ("undecided", ())
    assert "no map was run free" in str(found)


def test_the_first_map_decides_and_others_are_named():
    table = causes_table("attention", n=60, n_bootstraps=20)
    first = verdict(table.samples, table.points)
    assert first.decides == ("mean-shift", "k_proj", "all")
    others = {
        ("whitening", "k_proj", "all"): "attention",
        ("mean-shift", "k_proj", "reading"): "attention",
    }
    assert first.others == others
    assert first.sentences[-1] == (
        "The same rule gives 'attention' for whitening of k_proj at all layers; mean-shift of "
        "k_proj at reading layers."
    )
    asked = verdict(table.samples, table.points, name="whitening")
    assert asked.decides == ("whitening", "k_proj", "all")
    with pytest.raises(kg.UserError, match="unknown map 'whitenin'; did you mean 'whitening'"):
        verdict(table.samples, table.points, name="whitenin")
    with pytest.raises(kg.UserError, match="unknown set of layers 'reading'"):
        verdict(table.samples, table.points, name="whitening", layers="reading")


@pytest.mark.parametrize(
    ("value", "draws", "expected"),
    [
        (1.0, [-0.1, 0.1, 0.0, 0.1, -0.1], True),
        (-1.0, [-0.1, 0.1, 0.0, 0.1, -0.1], True),
        (1.0, [-1.2, -1.1, -1.2, -1.1, -1.2], True),  # they do the opposite
        (1.0, [1.2, -0.1, 0.1, -0.2, 0.0], False),  # one of them does more
        (1.0, [0.5, -0.6, 0.4, -0.5, 0.6], False),  # larger than each, within their spread
    ],
)
def test_larger_than_random_directions(value, draws, expected):
    assert exceeds(value, np.array(draws)) is expected


def named(mechanism: str, n: int, seeds: int, **settings: float) -> Counter[str]:
    """How often each mechanism is named, over seeds."""
    points = few_points()
    distance, attention = MECHANISMS[mechanism]
    model = Model(distance, attention, **settings)
    found: Counter[str] = Counter()
    for seed in range(seeds):
        samples = simulate(model, points, n, np.random.default_rng([seed, n]))
        found[verdict(samples, pd.DataFrame(points), n_bootstraps=20).mechanism] += 1
    return found


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_planted_mechanism_is_named(mechanism):
    assert named(mechanism, 80, 5)[mechanism] == 5


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 120])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_planted_mechanism_is_named_in_19_of_20_tables(mechanism, n):
    assert named(mechanism, n, 200)[mechanism] >= 190


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["distance", "attention", "neither"])
def test_with_much_noise_the_verdict_is_undecided_rather_than_wrong(mechanism):
    found = named(mechanism, 60, 100, noise=1.5, generic=0.2)
    assert found["undecided"] >= 30
    assert found[mechanism] + found["undecided"] >= 99
