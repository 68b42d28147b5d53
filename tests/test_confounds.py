"""Confounds switch what they say and leave the rest."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.confounds import MASSIVE, SELECTIONS, massive_dimensions
from keygap.contrasts import NotMeasurable
from test_contrasts import labels_of


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


def test_position_matched_has_the_same_positions_on_both_sides():
    labels = with_positions(labels_of(samples=8))
    # in half of the samples the text comes first: turn their positions around
    flip = labels["sample_id"].isin(["s0", "s1", "s2", "s3"])
    labels.loc[flip, "position"] = 23 - labels["position"][flip]
    a, b = SELECTIONS["position_matched"](labels, ["question"], 0)
    assert a.any()
    assert labels["position"][a].value_counts().to_dict() == (
        labels["position"][b].value_counts().to_dict()
    )


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
