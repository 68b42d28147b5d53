"""``kg.project`` on the small extraction of the embedded model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.errors import UserError
from keygap.projection.project import COLUMNS
from keygap.store.layer import LayerOnDisk
from made import LAYERS, files_of, made_store, made_vectors

FEW: dict[str, Any] = {"tokens": 40, "perplexity": 10}


@pytest.fixture(scope="module")
def projection(store) -> kg.Projection:
    return kg.project(store, **FEW)


def test_every_layer_has_the_drawn_tokens_of_both_modalities(projection):
    frame = projection.frame
    assert tuple(frame.columns) == COLUMNS
    counts = frame.groupby(["site", "layer", "modality"], observed=True).size()
    assert counts.to_dict() == {
        ("k_proj", layer, modality): 40 for layer in LAYERS for modality in ("image", "text")
    }
    assert set(frame.loc[frame["modality"] == "text", "role"]) == {"question"}
    assert np.isfinite(frame[["x", "y"]].to_numpy()).all()
    assert not frame.duplicated(["layer", "sample_id", "position"]).any()


def test_labels_are_those_of_the_store(projection, store):
    first = projection.frame.query("layer == 15")
    known = store.tokens.astype({"sample_id": str}).set_index(["sample_id", "position"])
    for row in first.to_dict("records"):
        label = known.loc[(str(row["sample_id"]), row["position"])]
        assert (row["token"], row["patch_row"]) == (label["token"], label["patch_row"])


def test_the_seed_draws_the_tokens_and_repeats(projection, store):
    again = kg.project(store, layers=[15], **FEW).frame
    drawn = projection.frame.query("layer == 15").reset_index(drop=True)
    pd.testing.assert_frame_equal(again, drawn)
    other = kg.project(store, layers=[15], seed=1, **FEW).frame
    assert not other["position"].equals(drawn["position"])


def test_all_tokens_are_projected_if_there_are_fewer_than_asked(store):
    frame = kg.project(store, layers=[0], tokens=10_000).frame
    labels = store.vectors("k_proj", 0).labels
    image = (labels["modality"] == "image").sum()
    text = (labels["role"] == "question").sum()
    assert frame["modality"].value_counts().to_dict() == {"image": image, "text": text}


def test_text_is_what_the_roles_say(store):
    frame = kg.project(store, layers=[0], text_roles=["template"], **FEW).frame
    assert set(frame.loc[frame["modality"] == "text", "role"]) == {"template"}


def test_what_is_saved_is_read_back_and_nothing_else_is_left(projection, tmp_path):
    projection.save(tmp_path)
    assert list(files_of(tmp_path)) == ["projection.parquet"]
    read = pd.read_parquet(tmp_path / "projection.parquet")
    pd.testing.assert_frame_equal(read, projection.frame)


def test_a_layer_of_one_modality_has_no_rows(tmp_path):
    """As in a model with cross-attention, where image and text are keys of different layers."""
    made = made_vectors()
    text = made.where((made.labels["modality"] == "text").to_numpy())
    projection = kg.project(made_store(text))
    assert projection.frame.empty
    projection.save(tmp_path)
    read = pd.read_parquet(tmp_path / "projection.parquet")
    assert tuple(read.columns) == COLUMNS


def test_only_the_drawn_tokens_are_read(store, monkeypatch):
    whole = kg.project(store, layers=[15], **FEW).frame

    def vectors(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(store, "vectors", vectors)
    read = []
    where_each = LayerOnDisk.where_each

    def counted(layer, masks):
        read.append(sum(int(mask.sum()) for mask in masks))
        return where_each(layer, masks)

    monkeypatch.setattr(LayerOnDisk, "where_each", counted)
    pd.testing.assert_frame_equal(kg.project(store, layers=[15], **FEW).frame, whole)
    assert read == [2 * FEW["tokens"]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_one_line(value):
    vectors = made_vectors()
    vectors.array[40, 1, 3] = value
    with pytest.raises(UserError, match=r"1 vectors of k_proj at layer 0 are NaN or infinite"):
        kg.project(made_store(vectors), tokens=10, perplexity=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_roles": ["questions"]}, "unknown role 'questions'; did you mean 'question'"),
        ({"text_roles": ["answer"]}, "no text tokens to compare: none of role answer, only of"),
        ({"layers": [3]}, "unknown layer '3'"),
        ({"sites": ["v_proj"]}, "unknown site 'v_proj'"),
        ({"tokens": 10, "perplexity": 30}, "20 tokens are too few for t-SNE"),
    ],
)
def test_what_cannot_be_projected_is_one_line(store, options, message):
    with pytest.raises(UserError) as error:
        kg.project(store, **{"layers": [0], **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
