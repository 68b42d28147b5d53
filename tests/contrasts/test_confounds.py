"""Each confound changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from contrasts.test_ladder import labels_of
from keygap.contrasts import CONTRASTS
from keygap.contrasts.confounds import CONFOUNDS, MASSIVE, massive_dimensions
from keygap.contrasts.contrast import NotMeasurable
from keygap.contrasts.ladder import IMAGE_TEXT


def selected(name, labels, roles, seed, contrast=IMAGE_TEXT):
    (confound,) = (confound for confound in CONFOUNDS if confound.name == name)
    return confound.select(contrast, labels, roles, seed)


def with_positions(labels):
    return labels.assign(position=labels.groupby("sample_id").cumcount())


def test_equal_counts_are_equal_in_every_sample():
    labels = with_positions(labels_of(words=5))
    a, b = selected("equal_counts", labels, ["question"], 0)
    counts = [labels["sample_id"][mask].value_counts().to_dict() for mask in (a, b)]
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {5}


def test_without_sinks_leaves_them_out_on_the_image_side():
    labels = with_positions(labels_of(sinks=True))
    a, _ = selected("without_sinks", labels, ["question"], 0)
    assert (labels["attention"][a] < 5).all()
    assert a.sum() == 6 * 15


def test_without_sinks_says_where_there_are_none():
    with pytest.raises(NotMeasurable, match="no attention sink"):
        selected("without_sinks", with_positions(labels_of()), ["question"], 0)


def test_with_template_adds_template_tokens():
    labels = with_positions(labels_of())
    _, b = selected("with_template", labels, ["question"], 0)
    assert set(labels["role"][b]) == {"question", "template"}


def test_with_template_needs_a_template_token():
    labels = with_positions(labels_of()).query("role != 'template'").reset_index(drop=True)
    with pytest.raises(NotMeasurable, match="no template token to add"):
        selected("with_template", labels, ["question"], 0)


def test_without_sinks_needs_a_sink_on_one_of_the_sides():
    labels = with_positions(labels_of(sinks=True))
    labels.loc[labels["modality"] == "image", "attention"] = 1.0  # the template keeps its sinks
    with pytest.raises(NotMeasurable, match="no attention sink is among these tokens"):
        selected("without_sinks", labels, ["question"], 0)


def test_a_confound_applies_to_the_contrast_it_is_given():
    """Upper against lower patches: six samples of 8 and 8 patches, one upper patch a sink."""
    labels = with_positions(labels_of(sinks=True))
    region = CONTRASTS["image_region"]
    a, b = selected("without_sinks", labels, ["question"], 0, region)
    assert (a.sum(), b.sum()) == (6 * 7, 6 * 8)
    labels.loc[a & (labels["patch_column"] == 1), "patch_row"] = -1  # 6 and 8 remain
    a, b = selected("equal_counts", labels, ["question"], 0, region)
    assert a.sum() == b.sum() == 6 * 6
    assert set(labels["modality"][a | b]) == {"image"}


def flipped(samples):
    """Labels in which the text of half of the samples comes first."""
    labels = with_positions(labels_of(samples=samples))
    flip = labels["sample_id"].isin([f"s{number}" for number in range(0, samples, 2)])
    labels.loc[flip, "position"] = 23 - labels["position"][flip]
    return labels


def test_position_matched_takes_one_token_of_a_sample_at_the_same_positions():
    labels = flipped(40)
    a, b = selected("position_matched", labels, ["question"], 0)
    assert a.sum() >= 8
    assert sorted(labels["position"][a]) == sorted(labels["position"][b])
    assert set(labels["modality"][a]) == {"image"}
    assert set(labels["role"][b]) == {"question"}
    assert labels["sample_id"][a | b].is_unique


def test_position_matched_finds_as_many_pairs_as_there_are():
    """Text at positions 1 and 2, one image at both and one at 1 only: two pairs are possible."""
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
            a, _ = selected("position_matched", labels, ["question"], seed)
        except NotMeasurable:
            continue
        found.append(labels["sample_id"][a].tolist())
    assert ["i1", "i2"] in found
    assert all(positions != ["i1", "i1"] for positions in found)


def test_position_matched_says_where_none_is_shared():
    with pytest.raises(NotMeasurable, match="are never at the same position"):
        selected("position_matched", with_positions(labels_of()), ["question"], 0)


def test_massive_dimensions_are_found():
    array = np.random.default_rng(0).normal(size=(500, 2, 16))
    with pytest.raises(NotMeasurable):
        massive_dimensions(array)
    array[:, 1, 3] *= 2 * MASSIVE
    found = massive_dimensions(array)
    assert np.argwhere(found).tolist() == [[1, 3]]
