"""Alternative texts and captions: each states the numbers of its figure, and how many samples."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from keygap.reporting import Run, bias_findings, findings, forest, heads, shape

# contrast, rung, layer, mmd2; intervals are 0.01 to either side
ROWS = (
    ("image_text", "between", 0, 0.30),
    ("image_text", "between", 5, 0.20),
    ("text_vocabulary", "kind", 0, 0.12),
    ("text_vocabulary", "kind", 5, 0.08),
    ("text_text", "same", 0, 0.001),
    ("text_token", "single", 5, 0.50),
)


def gap_frame(head: str = "all") -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, columns=["contrast", "rung", "layer", "mmd2"])
    of_gap = frame["contrast"] == "image_text"
    ratio = np.where(of_gap, frame["mmd2"] * 10, np.nan)
    return frame.assign(
        site="key", head=head, n_samples=np.where(frame["layer"] == 0, 40, 60),
        mmd2_ci_low=frame["mmd2"] - 0.01, mmd2_ci_high=frame["mmd2"] + 0.01,
        mmd2_null_low=-0.004, mmd2_null_high=0.25, ratio=ratio, ratio_ci_low=ratio - 1.5,
        ratio_ci_high=ratio + 1.5, p_holm=np.where(frame["layer"] == 0, 0.01, 0.2),
    )  # fmt: skip


def made_run(**parts: Any) -> Run:
    main = parts.pop("main", gap_frame())
    table = SimpleNamespace(
        main=main,
        frame=main,
        settings={"contrasts": [{"name": name, "rung": rung} for name, rung, *_ in ROWS]},
        **parts,
    )
    manifest = {"model": "made:model", "benchmark": "made"}
    return Run(Path(), manifest, cast(Any, table), None, None)


def test_the_ladder_states_the_largest_of_each_kind() -> None:
    text = findings.ladder_in_words([made_run()], "key")
    assert (
        "between image and text at most 0.300 (0.290 to 0.310) (image_text of made:model at "
        in text
    )
    assert "inside one modality at most 0.120 (0.110 to 0.130) (text_vocabulary of made:" in text
    assert "halves of one modality at most 0.001 (-0.009 to 0.011)" in text
    assert "0.5" not in text
    alone = findings.ladder_in_words([made_run()], "key", single=True)
    assert (
        "one word and the rest at most 0.500 (0.490 to 0.510) (text_token of made:model at "
        in alone
    )
    assert "image_text" not in alone
    assert "n = 40 to 60 samples" in findings.ladder_caption([made_run()], "key")
    assert "n = 60 samples" in findings.ladder_caption([made_run()], "key", single=True)


def test_the_gap_by_layer_states_both_ends_and_the_null() -> None:
    text = findings.gap_by_layer_in_words(made_run(), "key")
    assert "largest at layer 0 with 0.300 (0.290 to 0.310)" in text
    assert "smallest at layer 5 with 0.200 (0.190 to 0.210)" in text
    assert "(at most 0.2500) at 1 of 2 layers" in text


def test_the_forest_states_both_ends_with_their_intervals() -> None:
    runs = [made_run()]
    text = forest.forest_in_words(runs, "key")
    assert "from 2.00 (0.50 to 3.50) (made:model, layer 5)" in text
    assert "to 3.00 (1.50 to 4.50) (made:model, layer 0); in 1 of 2 rows" in text
    assert "n = 40 to 60 samples" in forest.forest_caption(runs, "key")


def test_heads_state_the_largest_and_how_many_were_found() -> None:
    run = made_run(main=pd.concat([gap_frame("0"), gap_frame("1").assign(mmd2=0.1)]))
    text = heads.in_words(run, "key")
    assert "largest 0.300 (0.290 to 0.310) at head 0 of layer 0" in text
    assert "p after Holm at most 0.05 at 2 of 4 cells" in text
    assert "n = 60 samples" in heads.caption(run, "key")


def test_the_jsd_states_the_fewest_and_the_most_components() -> None:
    rows = [
        ("image_text", "between", layer, dim, nats, end)
        for layer, values, end in ((0, (0.6, 0.69), 2.0), (5, (0.2, 0.5), np.nan))
        for dim, nats in zip((2, 50), values, strict=True)
    ]
    columns = ["contrast", "rung", "layer", "jsd_dim", "jsd_nats", "jsd_saturates_at"]
    profile = pd.DataFrame(rows, columns=columns).assign(site="key")
    profile = profile.assign(
        jsd_ci_low=profile["jsd_nats"] - 0.01, jsd_ci_high=profile["jsd_nats"] + 0.01
    )
    text = findings.jsd_in_words(made_run(profile=profile), "key")
    assert "image_text is 0.20 to 0.60 nats in 2 components" in text
    assert "(largest: 0.600 (0.590 to 0.610) at layer 0) and 0.50 to 0.69 in 50" in text
    assert "95 % of the maximum at 1 of 2 layers" in text


def test_neighbours_of_the_own_modality_are_counted() -> None:
    frame = pd.DataFrame({"x": [0.0, 0.1, 5.0, 5.1, 9.0], "y": 0.0, "modality": list("ttiti")})
    # the two on the left are of one modality; 5.0 and 5.1 are not; 9.0 is nearest to 5.1
    assert findings.neighbours_of_own_modality(frame) == pytest.approx(2 / 5)
    twice = pd.DataFrame({"x": [1.0, 1.0], "y": 0.0, "modality": ["t", "i"]})
    assert findings.neighbours_of_own_modality(twice) == 0
    assert np.isnan(findings.neighbours_of_own_modality(frame[:1]))


def test_projections_state_how_mixed_their_points_are() -> None:
    points = pd.DataFrame({"x": [0.0, 0.1, 5.0, 5.1], "y": 0.0, "modality": list("ttii")})
    mixed = points.assign(modality=list("titi"), layer=5)
    frame = pd.concat([points.assign(layer=0), mixed]).assign(site="key")
    run = Run(Path(), {"model": "made"}, cast(Any, None), frame, None)
    text = findings.projections_in_words([run], "key")
    assert text.endswith("2 panels of 4 tokens: the nearest neighbour of a token is of its own "
                         "modality for 0 to 100 % of the tokens")  # fmt: skip
    assert "2 panels of 4 tokens" in findings.projections_caption([run], "key")


def test_the_shape_states_shares_and_the_ratio_farthest_from_one() -> None:
    rows = [
        ("0", "share_mean", 7.0, 0.7), ("5", "share_mean", 7.0, 0.9),
        ("0", "spread_ratio", np.nan, 1.5), ("5", "spread_ratio", np.nan, 0.5),
        ("0", "jsd_histogram", 2.0, 0.6), ("0", "jsd_histogram", 50.0, 0.69),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["layer", "statistic", "dims", "value"])
    frame = frame.assign(site="key", contrast="image_text", head="all", null=0.1)
    frame = frame.assign(ci_low=frame["value"] - 0.1, ci_high=frame["value"] + 0.1)
    run = made_run(shape=SimpleNamespace(frame=frame))
    text = shape.in_words(run, "key", "image_text")
    assert "over 2 layers: shares of MMD squared: mean 70 to 90 %" in text
    assert "spread ratio farthest from 1 at layer 5 with 0.50 (0.40 to 0.60)" in text
    assert "in 2 components 0.60 nats, under swapped labels 0.10" in text
    assert "n = 60 samples" in shape.caption(run, "key", "image_text")


def attended(samples: int = 8) -> pd.DataFrame:
    """An image token gets half of what a text token gets; at head 1 of layer 0, 4 times as much."""
    rows = [
        {
            "sample_id": f"s{sample}", "layer": layer, "head": head, "queries": "last",
            "modality": modality, "role": "", "sink": sink, "n_keys": 10.0,
            "relative": 1000.0 if sink else 10.0 * share * (1 + 0.1 * (sample % 2)),
        }
        for sample in range(samples)
        for layer in (0, 3)
        for head in (0, 1)
        for sink in (False, True)
        for modality, share in (
            ("text", 1.0),
            ("image", 4.0 * (1 + sample / 20) if (layer, head) == (0, 1) else 0.5),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_attention_states_the_whole_and_both_ends() -> None:
    frame = attended()
    run = Run(Path(), {"model": "made"}, cast(Any, None), None, None)
    text = bias_findings.attention_in_words(run, frame)
    image, words = (
        frame[(frame["modality"] == name) & ~frame["sink"]].groupby("sample_id")["relative"].sum()
        for name in ("image", "text")
    )
    assert f"an image token gets {image.sum() / words.sum():.3g} (" in text
    assert "it gets more at 1 of 4 heads" in text
    assert " at layer 0, head 1, the smallest 0.5 (0.5 to 0.5) at layer" in text
    assert "n = 8 samples" in bias_findings.attention_caption(frame)


def test_the_interval_of_a_ratio_is_that_of_a_jackknife() -> None:
    frame = attended()
    own = frame[(frame["layer"] == 0) & (frame["head"] == 1)]
    sums = own[~own["sink"]].groupby(["sample_id", "modality"])["relative"].sum().unstack()
    value, low, high = bias_findings.ratio_interval(own)
    assert value == pytest.approx(sums["image"].sum() / sums["text"].sum())
    parts = np.log([
        sums.drop(index=name)["image"].sum() / sums.drop(index=name)["text"].sum()
        for name in sums.index
    ])  # fmt: skip
    error = np.sqrt(7 / 8 * ((parts - parts.mean()) ** 2).sum())
    assert np.log([low, high]) == pytest.approx(np.log(value) + error * 2.3646 * np.array([-1, 1]))
    assert np.isnan(bias_findings.ratio_interval(attended(1))[1])


def test_conditions_state_the_worst_and_where_a_wrong_text_is_followed_most() -> None:
    """Following a text that suggests the right answer, or without the image, says nothing."""
    names = ["as_is", "conflict", "conflict_absent", "agree", "matching"]
    frame = pd.DataFrame(
        {
            "probe": "hint",
            "condition": names,
            "n": [24, 24, 24, 20, 20],
            "accuracy": [0.8, 0.3, 0.4, 0.9, 0.95],
            "accuracy_low": [0.7, 0.2, 0.3, 0.8, 0.85],
            "accuracy_high": [0.9, 0.4, 0.5, 1.0, 1.0],
            "followed": [np.nan, 0.6, 0.7, 0.9, 0.95],
            "followed_low": [np.nan, 0.5, 0.6, 0.8, 0.85],
            "followed_high": [np.nan, 0.7, 0.8, 1.0, 1.0],
            "text": [np.nan, 5.0, np.nan, np.nan, 4.0],
        }
    )
    answers = pd.DataFrame(
        {
            "probe": "hint",
            "condition": [*names, *names],
            "correct": [True, False, False, True, True] + [False] * 5,
            "followed": [None, True, True, True, True, None, False, False, False, False],
        }
    )
    table = cast(Any, SimpleNamespace(frame=frame, samples=answers))
    run = Run(Path(), {"model": "made"}, cast(Any, None), None, None)
    text = bias_findings.conditions_in_words(run, table)
    assert "accuracy on the unchanged samples is 0.80 (0.70 to 0.90)" in text
    assert "lowest with 0.30 (0.20 to 0.40) under hint: conflict" in text
    assert text.endswith("the text is followed most under hint: conflict: 0.60 (0.50 to 0.70)")
    table.frame = frame[frame["condition"] != "conflict"]
    assert "followed" not in bias_findings.conditions_in_words(run, table)
    caption = bias_findings.conditions_caption(frame)
    assert "n = 20 to 24 samples" in caption
    assert "where neither moves, the hint has no effect." in caption


def test_links_state_the_strongest_of_what_is_drawn() -> None:
    frame = pd.DataFrame(
        {
            "layer": [0, 5, 5, 0],
            "head": ["all", "all", "3", "all"],
            "link": ["separation -> similarity"] * 3 + ["separation -> answer"],
            "measure": ["spearman"] * 3 + ["indirect"],
            "value": [0.2, -0.6, 0.9, 0.1],
            "ci_low": [0.1, -0.7, 0.8, -0.1],
            "ci_high": [0.3, -0.5, 1.0, 0.3],
            "found": [False, True, True, False],
            "detectable": 0.4,
            "n_samples": 24,
            "outcome": "larger is surer",
            "text_roles": "question",
        }
    )
    run = Run(Path(), {"model": "made"}, cast(Any, None), None, None)
    text = bias_findings.chain_in_words(run, frame)
    assert "similarity: strongest -0.60 (-0.70 to -0.50) at layer 5, found at 1 of 2 layers" in text
    assert (
        "the whole chain: strongest 0.10 (-0.10 to 0.30) at layer 0, found at 0 of 1 layer" in text
    )
    caption = bias_findings.chain_caption(frame)
    assert "over 24 samples" in caption
    assert "of 0.8; weaker correlations may have gone undetected." in caption
    assert caption.endswith(" answer: larger is surer.")
