"""What was written comes back, with its labels, and what is not there is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keygap.errors import UserError
from keygap.store import LabelledVectors, Store, StoreWriter, write_part

from .made import IDENTITY, PLACES, TOKENS, part, vector


@pytest.fixture
def store(tmp_path) -> Store:
    """Two parts; the third of four samples failed."""
    with StoreWriter(tmp_path / "run", IDENTITY) as writer:
        for number, failed in ((0, ()), (1, (2,))):
            tables = part(range(2 * number, 2 * number + 2), failed)
            written = write_part(tmp_path / "run", number, tables)
            writer.commit(number, tables.samples, written)
        writer.write_manifest({"model": "made"})
    return Store(tmp_path / "run")


def test_a_relative_path_that_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path("exp:1/run")
    tables = part(range(2))
    with StoreWriter(root, IDENTITY) as writer:
        writer.commit(0, tables.samples, write_part(root, 0, tables))
        writer.write_manifest({"model": "made"})
    found = Store(root).vectors("k_proj", 0)
    assert found.array[3].ravel().tolist() == vector(1, 0, 0)


def test_samples_tokens_and_what_was_asked_come_back(store):
    assert store.identity == IDENTITY
    assert store.manifest == {"model": "made"}
    assert store.samples["sample_id"].tolist() == ["s0", "s1", "s2", "s3"]
    assert store.samples["failure"].fillna("").tolist() == ["", "", "broken", ""]
    assert store.tokens["sample_id"].tolist() == [
        name for name in ("s0", "s1", "s3") for _ in "abc"
    ]
    assert store.tokens["token"].tolist() == list(TOKENS) * 3
    assert set(store.tokens["language"]) == {"en"}
    assert set(store.tokens["subject"]) == {"x"}
    assert repr(store).endswith(
        "3 samples, 1 failed (first s2: broken), hidden at layers 3, k_proj at layers 0, 3)"
    )


def test_sites_and_layers_are_listed(store):
    assert store.sites == ["hidden", "k_proj"]
    assert store.layers("k_proj") == [0, 3]
    assert sorted(store.site_layers()) == sorted(PLACES)
    assert store.site_layers(["k_proj"]) == [("k_proj", 0), ("k_proj", 3)]
    assert store.site_layers(layers=[3]) == [("hidden", 3), ("k_proj", 3)]


def test_vectors_come_back_with_their_labels(store):
    vectors = store.vectors("k_proj", 3)
    expected = [vector(sample, position, 3) for sample in (0, 1, 3) for position in range(3)]
    assert vectors.array.dtype == np.float32
    np.testing.assert_array_equal(vectors.array, np.reshape(expected, (9, 2, 2)))
    assert vectors.sample_ids.tolist() == ["s0"] * 3 + ["s1"] * 3 + ["s3"] * 3
    assert vectors.positions.tolist() == [0, 1, 2] * 3
    assert vectors.tokens.tolist() == list(TOKENS) * 3
    assert vectors.labels["attention"].tolist() == [*range(6), *range(3)]
    assert len(vectors) == 9


def test_vectors_are_chosen_by_modality_and_role(store):
    images = store.vectors("k_proj", 0, modality="image")
    assert images.array[:, 0, 0].tolist() == [0, 1000, 3000]
    assert images.labels.index.tolist() == [0, 1, 2]
    question = store.vectors("k_proj", 0, modality="text", role="question")
    assert set(question.tokens) == {"it"}
    assert len(store.vectors("k_proj", 0, role=["question", "template"])) == 6
    assert len(store.vectors("k_proj", 0, modality="audio")) == 0


@pytest.mark.parametrize(
    ("site", "layer", "line"),
    [
        ("k_prj", 0, "unknown site 'k_prj'; did you mean 'k_proj'"),
        ("k_proj", 1, r"unknown layer '1'.* known: 0, 3 \(of k_proj in "),
        ("hidden", 0, "unknown layer '0'"),
    ],
)
def test_a_site_or_layer_that_was_not_read_is_one_line(store, site, layer, line):
    with pytest.raises(UserError, match=line):
        store.vectors(site, layer)


def test_a_layer_may_have_some_of_the_tokens(tmp_path):
    """Where keys are image features or text and never both, a layer has the rows of its kind."""
    tables = part(range(3))
    text = tables.vectors["k_proj", 3].filter([False, True, True] * 3)
    tables = replace(tables, vectors={**tables.vectors, ("k_proj", 3): text})
    with StoreWriter(tmp_path, IDENTITY) as writer:
        written = write_part(tmp_path, 0, tables)
        writer.commit(0, tables.samples, written)
    store = Store(tmp_path)
    assert len(store.vectors("k_proj", 0)) == 9
    vectors = store.vectors("k_proj", 3)
    assert vectors.tokens.tolist() == ["is", "it"] * 3
    assert vectors.array[:, 0, 0].tolist() == [130, 230, 1130, 1230, 2130, 2230]


def test_a_folder_without_a_run_is_one_line(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="holds no run: make one with keygap extract"):
            Store(root)


def test_rows_are_chosen_by_a_mask():
    labels = pd.DataFrame(
        {"sample_id": ["a", "b", "c"], "position": [0, 1, 2], "token": list("xyz")}
    )
    chosen = LabelledVectors(np.arange(6.0).reshape(3, 1, 2), labels).where(
        np.array([True, False, True])
    )
    assert chosen.array.tolist() == [[[0, 1]], [[4, 5]]]
    assert chosen.tokens.tolist() == ["x", "z"]
    assert chosen.labels.index.tolist() == [0, 1]
