"""Vectors in memory have the rows and labels of an extraction, and no padding."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import keygap as kg
from keygap.align.fitting import fit
from keygap.align.vectors import read_vectors
from keygap.benchmarks import BadSample, InMemory
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from made import bench_of
from models.test_cross_attention import samples as samples_of_tiles
from models.zoo import BY_FAMILY

from .made_models import llava, pictures

LABELS = ["sample_id", "position", "token", "modality", "role", "attention"]


@pytest.fixture(scope="module")
def vlm():
    return llava()


@pytest.fixture(scope="module")
def bench():
    return bench_of(pictures(7)).choose(7)


@pytest.fixture(scope="module")
def extracted(vlm, bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "llava"
    return kg.extract(vlm, bench, out, layers=["all"], sites=["k_proj", "value"], batch_size=3)


@pytest.fixture(scope="module")
def read(vlm, bench):
    return read_vectors(vlm, bench, sites=["k_proj", "value"], batch_size=3)


def test_rows_and_labels_are_those_of_an_extraction(extracted, read):
    assert read.sites == extracted.sites
    for site in read.sites:
        assert read.layers(site) == extracted.layers(site) == [0, 1, 2, 3, 4, 5]
        for layer in read.layers(site):
            one, other = read.vectors(site, layer), extracted.vectors(site, layer)
            # an extraction reads prompts of similar lengths together, so sums are rounded apart
            np.testing.assert_allclose(one.array, other.array, atol=1e-5)
            pd.testing.assert_frame_equal(
                one.labels[LABELS], other.labels[LABELS], check_dtype=False, check_categorical=False
            )


@pytest.mark.parametrize("name", ["mean-shift", "text-text"])
def test_a_map_is_the_same_from_a_store_and_from_memory(extracted, read, name):
    one, other = (fit(name, each, site="k_proj") for each in (extracted, read))
    assert one.fitted_on == other.fitted_on
    assert one.layers.keys() == other.layers.keys()
    for layer, affine in one.layers.items():
        torch.testing.assert_close(affine.shift, other.layers[layer].shift, atol=1e-5, rtol=0)


def test_padding_is_left_out(vlm, bench, read):
    samples = [bench.sample(number) for number in range(7)]
    batch = vlm.prompter(samples)
    sizes = [len(labels) for labels in batch.labels]
    assert len(set(sizes)) > 1, "samples must differ in length to say anything of padding"
    own = read.vectors("k_proj", 4)
    assert own.labels.groupby("sample_id", sort=False).size().tolist() == sizes
    with Capture(vlm, ["k_proj"], [4]) as capture:
        alone = [capture(vlm.prompter([sample]))["k_proj", 4][0] for sample in samples]
    np.testing.assert_allclose(own.array, torch.cat(alone).numpy(), atol=1e-5)


def test_vectors_are_those_under_the_interventions(vlm, bench, read):
    with kg.mask(vlm, "image"):
        masked = read_vectors(vlm, bench, layers=[0, 3])
    assert np.array_equal(masked.vectors("k_proj", 0).array, read.vectors("k_proj", 0).array)
    assert not np.allclose(masked.vectors("k_proj", 3).array, read.vectors("k_proj", 3).array)
    assert [each["name"] for each in masked.facts["interventions"]] == ["mask"]
    assert read.facts["interventions"] == []


def test_image_features_of_cross_attention_have_their_labels():
    mllama = wrap(*BY_FAMILY["mllama"].build(), name="tiny mllama")
    own = read_vectors(mllama, bench_of(samples_of_tiles(3)), sites=["k_proj"], batch_size=2)
    kinds = {layer: set(own.vectors("k_proj", layer).labels["modality"]) for layer in range(4)}
    assert kinds[1] == kinds[3] == {"image"}
    assert kinds[0] == kinds[2]
    counts = own.vectors("k_proj", 1).labels.groupby("sample_id").size()
    assert counts.to_dict() == {"s00": 17, "s01": 34, "s02": 51}


class Broken(InMemory):
    """Some samples cannot be opened."""

    def sample(self, number: int):
        if number in (1, 2):
            raise BadSample("broken")
        return super().sample(number)


def test_samples_that_cannot_be_used_are_told(vlm, caplog):
    with caplog.at_level(logging.WARNING, "keygap"):
        own = read_vectors(vlm, Broken("made", pictures(4)), layers=["first"])
    assert own.failures == dict.fromkeys(("s1", "s2"), "broken")
    assert "2 of 4 samples of made are left out; the first is s1: broken" in caplog.text
    assert set(own.vectors("k_proj", 0).sample_ids) == {"s0", "s3"}
    with pytest.raises(UserError, match="no sample of made can be read; the first is s1: broken"):
        read_vectors(vlm, replace(Broken("made", pictures(4)).choose(4), places=(1, 2)))


def test_vectors_that_are_not_finite_are_no_vectors():
    own = llava()
    attention: Any = own.layers[1].attention
    with torch.no_grad():
        attention.k_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="k_proj of layer 1 is not finite in float32"):
        read_vectors(own, bench_of(pictures(2)), layers=[1])


def test_what_was_not_read_names_what_was(vlm, read):
    with pytest.raises(UserError, match="unknown site 'key'; known: k_proj, value"):
        read.vectors("key", 0)
    with pytest.raises(UserError, match="unknown layer '9'"):
        read.vectors("k_proj", 9)
    with pytest.raises(UserError, match="unknown site 'k_porj'; did you mean 'k_proj'"):
        read_vectors(vlm, bench_of(pictures(2)), sites=["k_porj"])
