"""Confounds switch what they say and leave the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from contrasts.test_ladder import labels_of
from keygap.contrasts.confounds import MASSIVE, SELECTIONS, massive_dimensions
from keygap.contrasts.ladder import NotMeasurable


def with_positions(labels):
    return labels.assign(position=labels.groupby("sample_id").cumcount())


def test_equal_counts_are_equal_in_every_sample():
    labels = with_positions(labels_of(words=5))
    a, b = SELECTIONS["equal_counts"](labels, ["question"], 0)
    counts = [labels["sample_id"][mask].value_counts().to_dict() for mask in (a, b)]
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {5}


def test_without_sinks_leaves_them_out_on_the_image_side():
    labels = with_positions(labels_of(sinks=True))
    a, _ = SELECTIONS["without_sinks"](labels, ["question"], 0)
    assert (labels["attention"][a] < 5).all()
    assert a.sum() == 6 * 15


def test_without_sinks_says_where_there_are_none():
    with pytest.raises(NotMeasurable, match="no sink"):
        SELECTIONS["without_sinks"](with_positions(labels_of()), ["question"], 0)


def test_with_template_adds_template_tokens():
    labels = with_positions(labels_of())
    _, b = SELECTIONS["with_template"](labels, ["question"], 0)
    assert set(labels["role"][b]) == {"question", "template"}


def flipped(samples):
    """In half of the samples the text comes first."""
    labels = with_positions(labels_of(samples=samples))
    flip = labels["sample_id"].isin([f"s{number}" for number in range(0, samples, 2)])
    labels.loc[flip, "position"] = 23 - labels["position"][flip]
    return labels


def test_position_matched_takes_one_token_of_a_sample_at_the_same_positions():
    labels = flipped(40)
    a, b = SELECTIONS["position_matched"](labels, ["question"], 0)
    assert a.sum() >= 8
    assert sorted(labels["position"][a]) == sorted(labels["position"][b])
    assert set(labels["modality"][a]) == {"image"}
    assert set(labels["role"][b]) == {"question"}
    assert labels["sample_id"][a | b].is_unique


def test_position_matched_finds_as_many_pairs_as_there_are():
    """Positions 1 and 2 of text; one image stands at both, the other at 1 only: two pairs."""
    labels = pd.DataFrame(
        [
            ("i1", "image", 1), ("i1", "image", 2), ("i2", "image", 1),
            ("t1", "text", 1), ("t2", "text", 2),
        ],
        columns=["sample_id", "modality", "position"],
    ).assign(role="question")  # fmt: skip
    found = []
    for seed in range(40):  # some of which put both images on the image side
        try:
            a, _ = SELECTIONS["position_matched"](labels, ["question"], seed)
        except NotMeasurable:
            continue
        found.append(labels["sample_id"][a].tolist())
    assert ["i1", "i2"] in found
    assert all(positions != ["i1", "i1"] for positions in found)


def test_position_matched_says_where_none_is_shared():
    with pytest.raises(NotMeasurable, match="never stand at the same position"):
        SELECTIONS["position_matched"](with_positions(labels_of()), ["question"], 0)


def test_massive_dimensions_are_found():
    array = np.random.default_rng(0).normal(size=(500, 2, 16))
    with pytest.raises(NotMeasurable):
        massive_dimensions(array)
    array[:, 1, 3] *= 2 * MASSIVE
    found = massive_dimensions(array)
    assert np.argwhere(found).tolist() == [[1, 3]]
