"""Contrasts from an experiment file select what they say."""

from __future__ import annotations

import textwrap

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from contrasts.test_ladder import image_of, labels_of
from keygap.contrasts import own
from keygap.contrasts.contrast import NotMeasurable
from keygap.contrasts.own import OwnContrast
from keygap.contrasts.sides import Selector
from made import made_vectors


def test_it_selects_what_it_says():
    labels = labels_of().assign(
        token=lambda frame: "Ġw" + frame["token_id"].astype(str), subject="s", language="en"
    )
    contrast = OwnContrast.model_validate(
        {
            "name": "corner_word",
            "a": {"modality": "image", "rows": [0, 0.5], "columns": [0, 0.25]},
            "b": {"role": ["question"], "token": ["w100", "w101"]},
        }
    ).contrast()
    a, b = contrast.select(labels, ["question"], 0)
    assert set(labels["patch_row"][a]) == {0, 1}
    assert set(labels["patch_column"][a]) == {0}
    assert set(labels["token_id"][b]) == {100, 101}


@pytest.mark.parametrize(
    ("b", "reason"),
    [({"role": ["hint"]}, "side b selects no token"), ({"modality": "image"}, "the same tokens")],
)
def test_a_side_without_tokens_or_shared_tokens_are_not_measurable(b, reason):
    contrast = OwnContrast.model_validate({"name": "mine", "a": {"modality": "image"}, "b": b})
    with pytest.raises(NotMeasurable, match=reason):
        contrast.contrast().select(labels_of(), ["question"], 0)


def test_the_examples_of_the_docstring_can_be_selected():
    assert own.__doc__ is not None
    example = yaml.safe_load(textwrap.dedent(own.__doc__.split("\n\n")[1]))
    kind, words = (OwnContrast.model_validate(item).contrast() for item in example)
    vectors = made_vectors(40)
    selector = Selector(vectors, ["question"], None, 0)
    case = selector.case(kind)
    assert len({*case.a.sample_ids, *case.b.sample_ids}) == 40
    text = vectors.labels[vectors.labels["modality"] == "text"]
    having = [set(text["sample_id"][text["token"] == token]) for token in ("Ġcircle", "Ġimage")]
    case = selector.case(words)
    assert set(case.a.sample_ids) == having[0] & having[1]
    assert case.left_out == len(having[0] ^ having[1]) > 0


def test_policies_of_a_users_contrast():
    mine = {"name": "mine", "a": {"modality": "image"}, "b": {"modality": "text"}}
    contrast = OwnContrast.model_validate(mine).contrast()
    assert (contrast.rung, contrast.pairing, contrast.required) == ("own", "auto", False)
    assert contrast.what == "modality image, against modality text"
    assert OwnContrast.model_validate(mine | {"rung": "kind"}).contrast().rung == "kind"
    with pytest.raises(ValidationError):
        OwnContrast.model_validate(mine | {"rung": "between"})


def test_windows_are_shares_of_the_picture_and_not_of_its_padding():
    labels = pd.concat(
        [image_of(4, 8, "thumbnail"), image_of(12, 24, top=6)], ignore_index=True
    )  # rows 6 to 17 of a square of 24
    mine = {"name": "top", "a": {"rows": [0, 0.25]}, "b": {"rows": [0.75, 1]}}
    a, b = OwnContrast.model_validate(mine).contrast().select(labels, ["question"], 0)
    thumbnail = (labels["role"] == "thumbnail").to_numpy()
    for mask, coarse, fine in ((a, {0}, {6, 7, 8}), (b, {3}, {15, 16, 17})):
        assert set(labels["patch_row"][mask & thumbnail]) == coarse
        assert set(labels["patch_row"][mask & ~thumbnail]) == fine


def test_a_contrast_of_two_modalities_is_not_of_rung_kind():
    mine = {"name": "mine", "a": {"modality": "image"}, "b": {"modality": "text"}, "rung": "kind"}
    with pytest.raises(NotMeasurable, match="two modalities"):
        OwnContrast.model_validate(mine).contrast().select(labels_of(), ["question"], 0)


def test_sinks_are_unknown_where_attention_was_not_recorded():
    mine = {"name": "mine", "a": {"modality": "image", "sink": False}, "b": {"modality": "text"}}
    labels = labels_of().assign(attention=float("nan"))
    with pytest.raises(NotMeasurable, match="sinks are unknown"):
        OwnContrast.model_validate(mine).contrast().select(labels, ["question"], 0)


def test_the_name_of_a_registered_contrast_is_refused():
    mine = {"name": "image_sink", "a": {"modality": "image"}, "b": {"modality": "text"}}
    with pytest.raises(ValidationError, match="image_sink is the name of a contrast"):
        OwnContrast.model_validate(mine)


def test_a_selection_has_undrawn_sinks_only_if_it_asks_for_sinks():
    labels = labels_of(sinks=True)
    extra = ((labels["attention"] >= 5) & (labels["modality"] == "image")).to_numpy()
    labels = labels.assign(drawn=~extra)
    image = own.Selection(modality="image")
    assert not (image.mask(labels) & extra).any()
    assert not (image.model_copy(update={"sink": False}).mask(labels) & extra).any()
    assert (image.model_copy(update={"sink": True}).mask(labels) == extra).all()
