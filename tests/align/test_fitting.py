"""A fit takes the tokens that it says, head by head, and refuses in one line what it cannot use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import keygap as kg
from keygap.align.fitting import fit
from keygap.align.maps import MAPS, HeadMap
from keygap.align.vectors import FitVectors
from keygap.errors import UserError
from keygap.store import LabelledVectors
from made import made_vectors
from store.made import run_of

from .made_vectors import HEAD_DIM, HEADS, planted, source

VECTORS = planted(range(40))


def rows(vectors: LabelledVectors, modality: str, sinks: bool) -> np.ndarray:
    """The vectors of a modality; a sink is the first token of a sample."""
    labels = vectors.labels
    keep = (labels["modality"] == modality) & (sinks | (labels["position"] > 0))
    return vectors.array[keep.to_numpy()].astype(np.float64)


@pytest.mark.parametrize("sinks", [False, True])
def test_the_mean_shift_is_the_difference_of_means_of_each_head(sinks):
    own = fit("mean-shift", source(VECTORS), sinks=sinks)
    expected = rows(VECTORS, "text", sinks).mean(0) - rows(VECTORS, "image", sinks).mean(0)
    np.testing.assert_allclose(own.layers[0].shift.numpy(), expected, rtol=1e-6)
    left = 0 if sinks else 40
    assert own.fitted_on["n_image"] == {"0": 480 - left}
    assert own.fitted_on["n_text"] == {"0": 320}
    assert own.fitted_on["n_sinks"] == {"0": left}


def test_heads_are_fitted_each_for_itself():
    own = fit("optimal-transport", source(VECTORS)).layers[0]
    assert own.matrix.shape == (HEADS, HEAD_DIM, HEAD_DIM)
    swapped = LabelledVectors(VECTORS.array[:, ::-1].copy(), VECTORS.labels)
    other = fit("optimal-transport", source(swapped)).layers[0]
    torch.testing.assert_close(own.matrix.flip(0), other.matrix)
    torch.testing.assert_close(own.shift.flip(0), other.shift)


def test_the_moved_image_has_the_moments_of_text_on_the_samples_of_the_fit():
    own = fit("optimal-transport", source(planted(range(400)))).layers[0]
    big = planted(range(400))
    moved = own.apply(torch.from_numpy(rows(big, "image", False))).numpy()
    text = rows(big, "text", False)
    np.testing.assert_allclose(moved.mean(0), text.mean(0), atol=1e-4)
    for head in range(HEADS):
        np.testing.assert_allclose(np.cov(moved[:, head].T), np.cov(text[:, head].T), atol=0.02)


def test_a_store_says_what_it_was_fitted_on(tmp_path):
    run_of(made_vectors(gap=1.0), tmp_path)
    own = fit("mean-shift", kg.Store(tmp_path), layers=[3], seed=2)
    assert list(own.layers) == [3]
    assert own.site == "k_proj"
    on = own.fitted_on
    assert {name: on[name] for name in ("model", "benchmark", "seed", "n_layers", "samples")} == {
        "model": "made", "benchmark": "made", "seed": 0, "n_layers": 4, "samples": 24,
    }  # fmt: skip
    assert on["sample_ids"] == [f"s{number:03d}" for number in range(24)]
    assert on["n_image"] == {"3": 24 * 9}
    assert on["n_text"] == {"3": 24 * 6}
    assert on["settings"] == {
        "text_roles": ["question"], "sinks": False, "seed": 2, "draw": 0,
        "layer_by_layer": False, "text_layer": None,
    }  # fmt: skip


def test_roles_choose_the_text():
    vectors = made_vectors()
    own = fit("mean-shift", source(vectors), text_roles=["template"])
    assert own.fitted_on["n_text"] == {"0": 24}
    with pytest.raises(UserError, match="unknown role 'questoin'; did you mean 'question'"):
        fit("mean-shift", source(vectors), text_roles=["questoin"])
    with pytest.raises(UserError) as error:
        fit("mean-shift", source(vectors), text_roles=["caption"])
    assert str(error.value) == (
        "mean-shift, k_proj, layer 0: there are no text tokens of role caption to fit on, only "
        "image, text; text has the roles question, template: see text_roles"
    )


def of(modality: str) -> LabelledVectors:
    return VECTORS.where((VECTORS.labels["modality"] == modality).to_numpy())


def test_one_modality_alone_is_one_line():
    with pytest.raises(UserError, match=r"layer 0: there are no image tokens .*token.* is text"):
        fit("mean-shift", source(of("text")))
    with pytest.raises(UserError, match=r"no text tokens of role question .* is image"):
        fit("mean-shift", source(of("image")))


def across(image: LabelledVectors, text: LabelledVectors) -> FitVectors:
    return FitVectors({("k_proj", 0): text, ("k_proj", 1): image})


def test_image_features_of_cross_attention_take_text_from_another_layer():
    image, text = of("image"), of("text")
    own = fit("coral", across(image, text), layers=1, text_layer=0)
    whole = fit("coral", source(VECTORS)).layers[0]
    assert list(own.layers) == [1]
    assert torch.equal(own.layers[1].matrix, whole.matrix)
    assert own.fitted_on["settings"]["text_layer"] == 0
    with pytest.raises(UserError, match="unknown text_layer '5'"):
        fit("coral", across(image, text), layers=1, text_layer=5)


def test_image_features_with_other_heads_are_refused():
    text = of("text")
    narrow = LabelledVectors(text.array[:, :1], text.labels)
    message = "layer 1: its vectors have 2 heads of 4 dimensions, .* has 1 of 4: choose"
    with pytest.raises(UserError, match=message):
        fit("coral", across(of("image"), narrow), layers=1, text_layer=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_values_that_are_not_finite_are_counted(value, modality):
    broken = LabelledVectors(VECTORS.array.copy(), VECTORS.labels)
    places = np.flatnonzero((VECTORS.labels["modality"] == modality).to_numpy())[5:8]
    broken.array[places, 1, 2] = value
    with pytest.raises(UserError, match=r"layer 0: 3 of .* vectors are not finite"):
        fit("mean-shift", source(broken))


def test_too_few_tokens_say_where():
    few = VECTORS.where(VECTORS.labels["sample_id"].isin(["s0000"]).to_numpy())
    few = few.where((few.labels["position"] < 16).to_numpy())
    with pytest.raises(UserError) as error:
        fit("optimal-transport", source(few))
    assert str(error.value) == (
        "optimal-transport, k_proj, layer 0: 4 text tokens of 1 samples are too few for a "
        "covariance of 4 dimensions: 5 tokens are needed, which is about 2 samples"
    )


def test_sites_and_layers_are_those_of_the_source():
    vectors = source(VECTORS, layers=(2, 5))
    assert list(fit("mean-shift", vectors).layers) == [2, 5]
    assert list(fit("mean-shift", vectors, layers=5).layers) == [5]
    with pytest.raises(UserError, match=r"unknown layer '3'.* known: all, 2, 5"):
        fit("mean-shift", vectors, layers=[2, 3])
    with pytest.raises(UserError, match="unknown layer 'first'"):
        fit("mean-shift", vectors, layers="first")
    with pytest.raises(UserError, match="unknown site 'key'"):
        fit("mean-shift", vectors, site="key")
    two = FitVectors({("k_proj", 0): VECTORS, ("value", 0): VECTORS})
    with pytest.raises(UserError, match="vectors of k_proj, value: choose one with site"):
        fit("mean-shift", two)
    assert fit("mean-shift", two, site="value").site == "value"


def test_without_attention_sinks_are_not_known():
    bare = LabelledVectors(VECTORS.array, VECTORS.labels.drop(columns="attention"))
    with pytest.raises(UserError, match="no attention, which tells sinks: pass sinks=True"):
        fit("mean-shift", source(bare))
    assert fit("mean-shift", source(bare), sinks=True).fitted_on["n_image"] == {"0": 480}


def test_a_seed_or_draw_that_is_none_is_one_line():
    with pytest.raises(UserError, match="seed is -1"):
        fit("mean-shift", source(VECTORS), seed=-1)
    with pytest.raises(UserError, match=r"draw is 1\.5"):
        fit("mean-shift", source(VECTORS), draw=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([HeadMap(np.full(4, np.nan))] * 2, "the fitted map is not finite"),
        ([HeadMap(np.ones(4), scale=np.ones(4)), HeadMap(np.ones(4))], "a scale for some heads"),
        ([HeadMap(np.ones(2))] * 2, r"a shift of shape \(2,\): \(4,\) is needed"),
        ([HeadMap(np.ones(4), matrix=np.ones((4, 1)))] * 2, r"matrix of shape \(4, 1\): \(4, 4\)"),
        ([HeadMap(np.ones(4), np.ones(4), np.eye(4))] * 2, "both a scale and a matrix"),
    ],
)
def test_what_a_kind_of_map_returns_is_checked(heads, message):
    left = list(heads)
    MAPS.register("own", lambda image, text, context: left.pop(0))
    try:
        with pytest.raises(UserError, match=f"own, k_proj, layer 0: .*{message}"):
            fit("own", source(VECTORS))
    finally:
        MAPS.unregister("own")
