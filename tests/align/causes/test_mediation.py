"""Mediation: effects are those computed by hand, and intervals hold the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

from align.causes.handmade import planned, rows
from align.causes.simulated import (
    ATTENTION_MOVED,
    GAP_CLOSED,
    PHRASINGS,
    THIRD,
    Model,
    all_points,
    causes_table,
    few_points,
    point,
    simulate,
    steered,
)
from keygap.align.causes.mediation import (
    COLUMNS,
    EFFECTS,
    OUTCOMES,
    UNCERTAIN,
    across_points,
    mediation,
    modes_of,
)
from keygap.bias.intervals import paired_proportions

POINTS = [point(), *steered((1.0,))]
MODES = ("none", "free", "held", "only")
NONE, FREE, HELD, ONLY = (each["point"] for each in POINTS)


def table(**margins: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hint margins of the four points, each an array of (samples, 2 phrasings)."""
    frames = [
        rows(name, {"hint_margin": np.asarray(margins[mode], float)})
        for name, mode in zip((NONE, FREE, HELD, ONLY), MODES, strict=True)
    ]
    return pd.concat(frames, ignore_index=True), pd.DataFrame(POINTS)


def effect(frame: pd.DataFrame, name: str, outcome: str = "hint_margin") -> dict[Any, Any]:
    (row,) = frame[(frame["effect"] == name) & (frame["outcome"] == outcome)].to_dict("records")
    return row


BY_HAND = {
    "none": [[-1, -2], [-1, -3], [-2, -1]],
    "free": [[3, 1], [2, 1], [1, 2]],
    "held": [[-1, 0], [0, -3], [-1, -1]],
    "only": [[2, 1], [1, -1], [1, 1]],
}


def test_effects_by_hand():
    frame = mediation(*table(**BY_HAND), n_bootstraps=100)
    assert list(frame.columns) == list(COLUMNS)
    assert list(dict.fromkeys(frame["outcome"])) == list(OUTCOMES)
    # sums of the six pairs: none -10, free 10, held -6, only 5
    expected = {"total": 20 / 6, "direct": 4 / 6, "attention": 15 / 6, "interaction": 1 / 6}
    for name, value in {**expected, "share": 15 / 20}.items():
        row = effect(frame, name)
        assert row["value"] == pytest.approx(value)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["n"] == 3
    # of six answers none follow at first, six when free, none when held, five when only
    assert effect(frame, "total", "followed")["value"] == 1
    assert effect(frame, "direct", "followed")["value"] == 0
    assert effect(frame, "attention", "followed")["value"] == pytest.approx(5 / 6)


def test_the_p_value_is_that_of_a_paired_t_test_over_samples():
    frame = mediation(*table(**BY_HAND), n_bootstraps=100)
    for name, mode in (("total", "free"), ("direct", "held"), ("attention", "only")):
        by_sample = (np.array(BY_HAND[mode]) - BY_HAND["none"]).mean(1)
        row = effect(frame, name)
        expected = ttest_1samp(by_sample, 0)
        assert row["p_value"] == pytest.approx(expected.pvalue)
        assert row["std_error"] == pytest.approx(by_sample.std(ddof=1) / np.sqrt(3))


def test_a_pair_that_one_point_lacks_counts_in_none():
    samples, points = table(**BY_HAND)
    gone = (
        (samples["point"] == ONLY) & (samples["sample_id"] == "s0") & (samples["variant"] == "v1")
    )
    frame = mediation(samples[~gone], points, n_bootstraps=100)
    assert effect(frame, "total")["value"] == pytest.approx((20 - 3) / 5)
    assert effect(frame, "direct")["value"] == pytest.approx((4 - 2) / 5)
    samples.loc[gone, "hint_margin"] = np.nan
    again = mediation(samples, points, n_bootstraps=100)
    assert effect(again, "total")["value"] == pytest.approx((20 - 3) / 5)


def test_the_share_is_withheld_where_the_total_may_be_0():
    samples, points = planned(direct=0.0, attention=0.0)
    frame = mediation(samples, points, n_bootstraps=100)
    own = frame[(frame["effect"] == "share") & (frame["outcome"] == "hint_margin")]
    assert own["value"].isna().all()
    assert set(own["note"]) == {UNCERTAIN}


def test_shares_are_joint_draws():
    """Where attention alone does what the free map does, the share is 1 without any width."""
    rng = np.random.default_rng(0)
    none = rng.normal(-2, 1, (30, 2))
    moved = none + rng.normal(2, 2, (30, 2))
    frame = mediation(*table(none=none, free=moved, held=none, only=moved), n_bootstraps=100)
    share = effect(frame, "share")
    assert (share["value"], share["ci_low"], share["ci_high"]) == pytest.approx((1, 1, 1))
    total = effect(frame, "total")
    assert total["ci_high"] - total["ci_low"] > 0.3


def test_where_no_answer_changed_the_interval_has_room_for_some():
    none = np.full((30, 2), -3.0)
    frame = mediation(*table(none=none, free=none + 5, held=none, only=none + 5))
    high = binomtest(0, 30).proportion_ci(method="wilson").high
    direct, total = (effect(frame, name, "followed") for name in ("direct", "total"))
    assert (direct["ci_low"], direct["ci_high"]) == pytest.approx((-high, high))
    assert (total["ci_low"], total["ci_high"]) == pytest.approx((1 - high, 1))
    newcombe = paired_proportions(np.zeros(30, bool), np.zeros(30, bool))
    assert direct["ci_high"] == pytest.approx(newcombe.high, abs=0.01)


def test_only_interventions_with_three_modes_have_effects():
    points = pd.DataFrame(all_points())
    found = {(each["name"], each["site"], each["layers"]) for each in modes_of(points)}
    expected = {("mean-shift", "k_proj", "all"), ("whitening", "k_proj", "all")}
    assert found == expected | {("mean-shift", "k_proj", "reading")}
    samples, few = planned(direct=1.0, attention=0.0)
    held_alone = few[few["mass"].isin(["", "held"])]
    assert mediation(samples, held_alone).empty
    controls = modes_of(points, ("control",))
    assert [each["draw"] for each in controls] == list(range(5))


def test_without_an_unsteered_point_there_is_nothing_to_compare_with():
    samples, points = planned(direct=1.0, attention=0.0)
    with pytest.raises(ValueError, match="one point of kind none"):
        mediation(samples, points[points["kind"] != "none"])


def residuals(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(x)), x])
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def test_correlations_over_points_are_those_of_their_means():
    found = causes_table("both", n=30, n_bootstraps=20)
    frame = across_points(found.samples, found.points, n_bootstraps=100)
    chosen = found.points[found.points["kind"] != "baseline"]["point"]
    means = found.samples.groupby("point")[["hint_margin", "gap", "image_attention"]].mean()
    y, gap, attention = means.loc[chosen].to_numpy(float).T
    expected = {
        ("gap", ""): np.corrcoef(y, gap)[0, 1],
        ("image_attention", ""): np.corrcoef(y, attention)[0, 1],
        ("gap", "image_attention"): np.corrcoef(residuals(y, attention), residuals(gap, attention))[
            0, 1
        ],
        ("image_attention", "gap"): np.corrcoef(residuals(y, gap), residuals(attention, gap))[0, 1],
    }
    own = frame[frame["outcome"] == "hint_margin"]
    for row in own.to_dict("records"):
        value = expected.pop((row["predictor"], row["given"]))
        assert row["value"] == pytest.approx(value, abs=1e-9)
        assert row["ci_low"] <= row["ci_high"]
    assert not expected
    assert set(own["n_points"]) == {len(chosen)}


def test_too_few_points_have_no_correlation():
    samples, points = table(**BY_HAND)
    frame = across_points(samples, points)
    assert frame["value"].isna().all()
    assert set(frame["note"]) == {"4 points have all three, and 5 are needed"}


def test_a_predictor_that_does_not_vary_has_no_correlation():
    samples, points = planned(direct=1.0, attention=0.0, attention_moves=0.0)
    samples = samples.assign(image_attention=0.2)
    frame = across_points(samples, points, n_bootstraps=20)
    own = frame[frame["predictor"] == "image_attention"]
    assert own["value"].isna().all()
    assert set(own["note"]) == {"a quantity does not vary by itself"}


@pytest.mark.slow
def test_intervals_hold_the_truth():
    model = Model(distance=0.6, attention=1.4)
    points = [each for each in few_points(0) if each["strength"] >= 0]
    described = pd.DataFrame(points)
    closed, lowered = model.distance * GAP_CLOSED, model.attention * ATTENTION_MOVED
    truth = {("hint_margin", name): value for name, value in (
        ("total", closed + lowered), ("direct", closed), ("attention", lowered),
        ("interaction", 0.0), ("share", lowered / (closed + lowered)),
    )}  # fmt: skip
    before = following(model, 0.0, 0.0, moved=False)
    shares = {
        "total": following(model, closed, lowered) - before,
        "direct": following(model, closed, 0.0) - before,
        "attention": following(model, 0.0, lowered) - before,
    }
    truth |= {("followed", name): value for name, value in shares.items()}
    truth["followed", "share"] = shares["attention"] / shares["total"]
    held: dict[Any, list[bool]] = {key: [] for key in truth}
    for seed in range(600):
        samples = simulate(model, points, 80, np.random.default_rng([seed, 7]))
        frame = mediation(
            samples, described, outcomes=("hint_margin", "followed"), n_bootstraps=600, seed=seed
        )
        for (outcome, name), value in truth.items():
            row = effect(frame, name, outcome)
            held[outcome, name].append(row["ci_low"] <= value <= row["ci_high"])
    coverage = {key: float(np.mean(each)) for key, each in held.items()}
    assert set(EFFECTS) <= {name for _, name in coverage}
    assert all(0.92 <= share <= 0.98 for share in coverage.values()), coverage


def following(model: Model, closed: float, lowered: float, moved: bool = True) -> float:
    """The share of answers that follow, of all samples that there could be."""
    variance = model.spread**2 + model.answer_noise**2 + moved * model.noise**2
    variance += (model.slopes * closed) ** 2 + (model.slopes * lowered) ** 2
    variance += (
        (1 + model.slopes**2)
        * 0.1**2
        * ((model.distance * (closed > 0)) ** 2 + (model.attention * (lowered > 0)) ** 2)
    )
    means = model.base + PHRASINGS + closed + lowered
    return float((1 - THIRD) * norm.cdf(means / np.sqrt(variance)).mean())
