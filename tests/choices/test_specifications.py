"""Planted gaps under every choice: the right statements hold, and bad choices are seen to fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from choices.planted import planted
from keygap.choices import measuring
from keygap.choices.levels import DIVERGENCES, KERNELS, Plan
from keygap.choices.running import specifications
from keygap.errors import UserError

SMALL = Plan(
    tokens=[100],
    layers=["first", "last"],
    heads=["together", "mean"],
    text=["question"],
    estimators=["gaussian_median", "gaussian_grid", "energy", "histogram_10"],
)


def share(table, statement: str, measure: str = "mmd", model: str | None = None) -> float:
    rows = table.statements
    found = rows[(rows["statement"] == statement) & (rows["measure"] == measure)]
    if model is not None:
        found = found[found["model"] == model]
    assert len(found) == 1
    return float(found["share"].iloc[0])


def test_the_known_order_of_two_gaps_is_found_by_every_sound_choice():
    table = specifications(planted("far", 4.0), planted("near", 2.0, seed=1), plan=SMALL)
    assert share(table, "order", model="far > near") == 1.0
    assert share(table, "separated", model="far") == 1.0


@pytest.mark.slow
def test_the_order_of_equal_models_holds_in_about_half_of_the_choices():
    shares = []
    for seed in range(8):
        stores = planted("one", 2.0, seed=2 * seed), planted("two", 2.0, seed=2 * seed + 1)
        table = specifications(*stores, plan=SMALL)
        shares.append(share(table, "order", model="one > two"))
    assert 0.2 < np.mean(shares) < 0.8


@pytest.mark.slow
def test_a_null_is_separated_in_few_unbiased_choices():
    found = []
    for seed in range(6):
        table = specifications(planted(gap=0.0, seed=seed), plan=SMALL)
        own = table.frame[(table.frame["bias"] == "unbiased") & (table.frame["scale"] == "mmd2")]
        found.append((own["cross"] > own[["image_image", "text_text"]].max(axis=1)).mean())
    assert np.mean(found) < 0.6  # a third by symmetry


def test_bandwidth_1_in_128_dimensions_is_shown_failing():
    """exp(-|a - b|^2 / 2) of two vectors with 128 columns of deviation 1 is about exp(-128)."""
    plan = Plan(tokens=[100], spaces=["raw"], estimators=["gaussian_median", "gaussian_1"])
    stores = [planted(name, gap, head_dim=64, seed=n) for n, (name, gap) in enumerate(
        [("far", 8.0), ("near", 4.0)]
    )]  # fmt: skip
    frame = specifications(*stores, plan=plan).frame
    unbiased = frame[(frame["bias"] == "unbiased") & (frame["scale"] == "mmd2")]
    together = unbiased[unbiased["heads"] == "together"]
    fixed = together[together["estimator"] == "gaussian_1"]
    median = together[together["estimator"] == "gaussian_median"]
    assert len(fixed) == len(median) > 0
    assert (fixed["cross"].abs() < 1e-6).all()
    assert (median["cross"] > 0.01).all()


def test_joint_histograms_in_50_dimensions_are_shown_failing():
    """Every vector has a bin of its own, so two halves of one modality are as far apart."""
    plan = Plan(tokens=[200], spaces=["pca_50"], estimators=["joint_50_10", "histogram_10"])
    frame = specifications(planted(gap=3.0, head_dim=32), plan=plan).frame
    joint = frame[(frame["estimator"] == "joint_50_10") & (frame["scale"] == "nats")]
    assert len(joint) > 0
    assert (joint["image_image"] > 0.95 * np.log(2)).all()
    assert (joint["ratio"] < 1.06).all()


@pytest.mark.slow
def test_every_combination_that_the_rules_allow_is_there_once():
    """Counted by hand from the rules: MMDs for all heads, JSDs for all heads together only."""
    table = specifications(planted(head_dim=32), plan=Plan(tokens=[60, 100]))
    frame = table.frame
    assert frame["row"].is_unique
    layers, heads, texts, outliers, tokens, units = 4, 4, 2, 1, 2, 2
    selected = layers * texts * outliers * tokens * units
    mmd = selected * heads * 3 * len(KERNELS) * 2 * 2
    assert (frame["measure"] == "mmd").sum() == mmd
    spaces = {"raw": 4, "standardised": 4, "pca_50": len(DIVERGENCES)}
    for space, estimators in spaces.items():
        own = frame[(frame["measure"] == "jsd") & (frame["space"] == space)]
        missing = 3 if space == "pca_50" else 0  # 50 tokens of a half vary in fewer directions
        names = own["estimator"].nunique()
        assert names in (estimators, estimators - missing)
        assert (own.groupby("estimator").size() <= selected * 3).all()


def test_cost_grows_with_coordinates_and_kernels_and_not_with_choices(monkeypatch):
    """Evaluations of kernels are counted while the number of choices is multiplied."""
    calls = []
    original = measuring.kernel_sums

    def counted(selection, points, kernels, *more):
        calls.append(len(kernels))
        return original(selection, points, kernels, *more)

    monkeypatch.setattr(measuring, "kernel_sums", counted)

    def run(**levels: Any) -> tuple[int, int, int]:
        calls.clear()
        fixed: dict[str, Any] = {"tokens": [100], "estimators": ["linear"], "spaces": ["raw"]}
        plan = Plan(**{**fixed, **levels})
        table = specifications(planted(), plan=plan)
        assert table.settings["coordinates"] == len(calls)
        return len(calls), sum(calls), len(table.frame)

    few = run(units=["sample"], heads=["mean"])
    many = run(units=["sample", "token"], heads=["mean", "each"])
    assert few[:2] == many[:2]
    assert many[2] == 2 * 3 * few[2]
    twice = run(spaces=["raw", "standardised"], units=["sample"], heads=["mean"])
    assert twice[0] == 2 * few[0]


def test_what_a_store_cannot_serve_is_one_line_each_and_the_rest_goes_on():
    table = specifications(planted(layers=(0, 2), attention=None), plan=Plan(tokens=[60, 5000]))
    groups, *notes = table.settings["notes"]
    assert groups.startswith("intervals leave out ")
    assert set(table.frame["tokens"]) == {60}
    assert set(table.frame["layer"]) == {"first", "last", "mean"}
    for word in ("layer middle", "5000 image tokens: the store has 240", "sinks are unknown"):
        assert sum(word in note for note in notes) == 1, word
    assert all("\n" not in note for note in notes)
    assert all(note.startswith("made, k_proj: ") for note in notes)


@pytest.mark.filterwarnings("error")
def test_two_layers_without_a_common_combination_have_no_statement():
    """The first layer has questions and nothing else, and the last one has no question."""
    store = planted(layers=(0, 2), heads=1)
    for layer, role in ((0, "question"), (2, "template")):
        labels = store.layer("k_proj", layer).labels
        labels["role"] = np.where(labels["modality"] == "text", role, "")
    plan = Plan(
        tokens=[60], spaces=["raw"], estimators=["linear"], text=["question", "all"],
        layers=["first", "last"],
    )  # fmt: skip
    table = specifications(store, plan=plan)
    texts = table.frame.groupby("layer")["text"].unique().map(list).to_dict()
    assert texts == {"first": ["question"], "last": ["all"]}
    assert "last > first" not in set(table.statements["statement"])
    assert table.statements["share"].notna().all()


@pytest.mark.parametrize(
    ("stores", "levels", "message"),
    [
        ([], {}, "name a run folder or a study folder"),
        ([planted(), planted()], {}, "two runs are of made on made"),
        ([planted()], {"tokens": [5000]}, "none of the choices can be computed"),
    ],
)
def test_what_cannot_be_tried_at_all_is_refused(stores, levels, message):
    with pytest.raises(UserError, match=message):
        specifications(*stores, plan=Plan(**levels))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"estimators": ["gausian_median"]}, "gaussian_median"),
        ({"spaces": []}, "spaces"),
        ({"heads": ["each", "each"]}, "each"),
        ({"tokens": [3]}, "at least 20"),
        ({"tokens": ["many"]}, "whole number"),
        ({"n_groups": 2}, "at least 4"),
    ],
)
def test_levels_that_do_not_exist_are_refused(levels, message):
    with pytest.raises(UserError, match=message):
        Plan(**levels)


def test_the_same_seed_gives_the_same_table_and_another_one_other_tokens():
    plan = Plan(tokens=[60], estimators=["gaussian_grid", "classifier"], heads=["together"])
    first, second, other = (
        specifications(planted(), plan=plan, seed=seed).frame for seed in (0, 0, 1)
    )
    assert first.equals(second)
    assert list(first["row"]) == list(other["row"])
    assert not np.isclose(first["cross"], other["cross"]).all()


@pytest.mark.parametrize(
    ("samples", "tokens", "n_groups"),
    [((60,), [50, 200], 25), ((41, 20), [100], 10), ((120,), [200], 50)],
)
def test_all_choices_share_the_groups_that_the_smallest_selection_has(samples, tokens, n_groups):
    """50 tokens are of 50 samples, which are 25 pairs; 200 tokens of 60 samples would have 30."""
    plan = Plan(
        tokens=tokens, layers=["first", "mean"], heads=["together"], text=["question"],
        spaces=["raw"], units=["sample"], estimators=["linear", "histogram_10"],
    )  # fmt: skip
    stores = [planted(f"m{count}", samples=count, layers=(0, 1)) for count in samples]
    table = specifications(*stores, plan=plan)
    assert table.settings["n_groups"] == n_groups
    assert set(table.frame["tokens"]) == set(tokens)
    assert set(table.frame["model"]) == {f"m{count}" for count in samples}
    assert table.frame["cross_low"].notna().all()
