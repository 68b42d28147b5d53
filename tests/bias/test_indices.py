"""MDI and AEI, computed by hand from a table of a few rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keygap.bias.attention_table import COLUMNS
from keygap.bias.indices import CHOICES, attention_indices, stages_of
from keygap.errors import UserError

# two samples, one layer, two heads; for each head: role, relative attention, number of keys
HEADS = {
    ("a", 0): {"system": (2.0, 1), "question": (3.0, 2), "image": (1.0, 4)},
    ("a", 1): {"system": (4.0, 1), "question": (1.0, 2), "image": (3.0, 4)},
    ("b", 0): {"system": (6.0, 1), "question": (6.0, 4), "image": (1.0, 4)},
    ("b", 1): {"system": (0.0, 1), "question": (6.0, 4), "image": (1.0, 4)},
}


def row(sample: str, head: int, name: str, relative: float, n_keys: float, layer: int = 0) -> dict:
    image = name == "image"
    return dict.fromkeys(COLUMNS, 0.0) | {
        "sample_id": sample,
        "layer": layer,
        "head": head,
        "queries": "last",
        "modality": "image" if image else "text",
        "role": "" if image else name,
        "sink": name == "system",
        "first": name == "system",
        "relative": relative,
        "n_keys": n_keys,
    }


def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row(sample, head, name, relative, n_keys)
            for (sample, head), groups in HEADS.items()
            for name, (relative, n_keys) in groups.items()
        ]
    )


def variant(found: pd.DataFrame, **choices: str) -> pd.Series:
    for name, value in ({"queries": "last", "stage": "all"} | choices).items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_each_order_of_averaging_by_hand():
    found = attention_indices(table(), n_bootstraps=50)
    # means over heads: a: question 2 over 2, image 2 over 4; b: question 6 over 4, image 1 over 4
    mean = variant(found, text="question", sinks="with", first="with", order="mean of ratios")
    assert mean["mdi"] == pytest.approx((2.0 + 6.0) / 2)
    # a: share 2 / 4 over q = 2 / 6; b: share 6 / 7 over q = 4 / 8
    assert mean["aei"] == pytest.approx((1.5 + 12 / 7) / 2)
    assert mean["q"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    ratio = variant(found, text="question", sinks="with", first="with", order="ratio of sums")
    assert ratio["mdi"] == pytest.approx((8 / 6) / (3 / 8))
    assert ratio["aei"] == pytest.approx((8 / 11) / (6 / 14))
    assert ratio["q"] == pytest.approx(6 / 14)
    assert ratio["n_samples"] == 2


@pytest.mark.parametrize("left_out", [{"sinks": "without"}, {"first": "without"}])
def test_sinks_and_the_first_token_can_be_left_out(left_out):
    found = attention_indices(table(), n_bootstraps=50)
    whole = {"text": "all", "sinks": "with", "first": "with", "order": "ratio of sums"}
    # system: 3 on average over heads in either sample, one token each
    assert variant(found, **whole)["mdi"] == pytest.approx((14 / 8) / (3 / 8))
    without = variant(found, **(whole | left_out))
    assert without["mdi"] == pytest.approx((8 / 6) / (3 / 8))


def test_where_nothing_is_averaged_q_joins_the_two_indices():
    one = table().query("sample_id == 'a'")
    for _, each in attention_indices(one).iterrows():
        assert each["aei"] == pytest.approx(each["mdi"] / (1 + each["q"] * (each["mdi"] - 1)))
        assert np.isnan(each["mdi_low"])
        assert each["n_samples"] == 1


def test_a_variant_is_named_by_its_choices():
    found = attention_indices(table(), n_bootstraps=20)
    assert not found.duplicated(list(CHOICES)).any()
    assert len(found) == 3 * 2 * 2 * 2 * 1 * 5  # four stages and one layer


def test_a_sample_without_an_image_that_is_seen_does_not_count():
    frame = table()
    blind = (frame["sample_id"] == "b") & (frame["modality"] == "image")
    frame.loc[blind, ["relative", "n_keys"]] = 0.0
    found = attention_indices(frame, n_bootstraps=50)
    for order in ("mean of ratios", "ratio of sums"):
        each = variant(found, text="question", sinks="with", first="with", order=order)
        assert each["mdi"] == pytest.approx(2.0)
        assert each["n_samples"] == 1


def test_intervals_hold_the_spread_between_samples():
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        text = float(rng.gamma(40, 1 / 40))
        rows += [row(f"s{number}", 0, "question", 6 * text, 2)]
        rows += [row(f"s{number}", 0, "image", 4.0, 4)]
    found = attention_indices(pd.DataFrame(rows))
    each = variant(found, text="user", sinks="with", first="with", order="mean of ratios")
    standard_error = 3 * np.sqrt(1 / 40) / np.sqrt(60)
    assert each["mdi_low"] < each["mdi"] < each["mdi_high"]
    width = each["mdi_high"] - each["mdi_low"]
    assert width == pytest.approx(2 * 1.96 * standard_error, rel=0.35)
    again = attention_indices(pd.DataFrame(rows))
    pd.testing.assert_frame_equal(found, again)


def test_stages_are_the_first_middle_and_last_two_layers():
    assert stages_of(32) == {
        "early": [0, 1], "middle": [15, 16], "late": [30, 31], "all": list(range(32))
    }  # fmt: skip
    assert stages_of(1) == {"early": [0], "middle": [0], "late": [0], "all": [0]}


def test_an_empty_table_is_refused():
    with pytest.raises(UserError, match="no row"):
        attention_indices(table().iloc[:0])
