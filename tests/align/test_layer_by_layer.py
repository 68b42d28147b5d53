"""Maps fitted layer by layer close what they promise while all of them act; maps fitted at once,
on a model without them, do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keygap.align.fitting import fit, fit_layer_by_layer
from keygap.align.vectors import read_vectors
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from made import bench_of

from .made_models import DEPTH, llava, pictures

ROLES = ["question", "template"]


class Added(Intervention):
    """Moves the tokens of images: x @ matrix + shift, written out."""

    name = "added"

    def __init__(self, own):
        self.sites, self.layers, self.own = (own.site,), list(own.layers), own

    def change(self, vectors, site, layer, tokens):
        affine = self.own.layers[layer.index]
        heads = []
        for head in range(vectors.shape[2]):
            x = vectors[:, :, head]
            if affine.matrix is not None:
                x = x @ affine.matrix[head]
            if affine.scale is not None:
                x = x * affine.scale[head]
            heads.append(x + affine.shift[head])
        chosen = tokens.are(("image",))
        return torch.where(chosen[..., None, None], torch.stack(heads, 2), vectors)


@pytest.fixture(scope="module")
def vlm():
    return llava()


@pytest.fixture(scope="module")
def bench():
    return bench_of(pictures(9))


def sides(vlm, bench, site: str, layer: int, *applied: Intervention) -> list[np.ndarray]:
    """Image and text vectors of all samples at a layer, read one sample after another."""
    image, text = [], []
    with vlm.interventions.applied(*applied), Capture(vlm, [site], [layer]) as capture:
        for sample in bench.samples:
            batch = vlm.prompter([sample])
            vectors = capture(batch)[site, layer][0].double().numpy()
            labels = batch.labels[0]
            image.append(vectors[labels.modality == "image"])
            text.append(vectors[(labels.modality == "text") & np.isin(labels.role, ROLES)])
    return [np.concatenate(side) for side in (image, text)]


def distance(image: np.ndarray, text: np.ndarray) -> float:
    return float(np.linalg.norm(image.mean(0) - text.mean(0)))


@pytest.mark.parametrize("site", ["k_proj", "key", "hidden"])
def test_it_closes_the_means_of_a_late_layer_and_fitting_at_once_does_not(vlm, bench, site):
    arguments = {"site": site, "text_roles": ROLES, "sinks": True}
    one_by_one = fit_layer_by_layer(vlm, "mean-shift", bench, batch_size=4, **arguments)
    vectors = read_vectors(vlm, bench, sites=[site], batch_size=4)
    at_once = fit("mean-shift", vectors, **arguments)
    assert list(one_by_one.layers) == list(at_once.layers) == list(range(DEPTH))
    late = DEPTH - 1
    before = distance(*sides(vlm, bench, site, late))
    closed = distance(*sides(vlm, bench, site, late, Added(one_by_one)))
    left = distance(*sides(vlm, bench, site, late, Added(at_once)))
    assert closed < 1e-5 * before
    assert left > 1e-3 * before
    assert distance(*sides(vlm, bench, site, 0, Added(at_once))) < 1e-5 * before


def test_it_closes_deviations_too(vlm, bench):
    own = fit_layer_by_layer(vlm, "mean-variance", bench, text_roles=ROLES, sinks=True)
    image, text = sides(vlm, bench, "k_proj", DEPTH - 1, Added(own))
    np.testing.assert_allclose(image.mean(0), text.mean(0), atol=1e-4)
    np.testing.assert_allclose(image.std(0), text.std(0), rtol=1e-4)


def test_the_first_layer_is_that_of_fitting_at_once(vlm, bench):
    own = fit_layer_by_layer(vlm, "optimal-transport", bench, layers=[0, 3], text_roles=ROLES)
    vectors = read_vectors(vlm, bench, layers=[0, 3])
    at_once = fit("optimal-transport", vectors, text_roles=ROLES)
    assert torch.equal(own.layers[0].matrix, at_once.layers[0].matrix)
    assert not torch.allclose(own.layers[3].matrix, at_once.layers[3].matrix, atol=1e-4)
    assert own.fitted_on["settings"]["layer_by_layer"]
    assert not at_once.fitted_on["settings"]["layer_by_layer"]
    assert own.fitted_on["sample_ids"] == [f"s{number}" for number in range(9)]
    own.check(vlm)


def test_each_pass_ends_at_its_layer_and_leaves_nothing(vlm, bench):
    called: list[int] = []
    watched = [
        layer.block.register_forward_pre_hook(lambda *_, index=layer.index: called.append(index))
        for layer in vlm.layers
    ]
    try:
        fit_layer_by_layer(vlm, "mean-shift", bench, layers=[0, 2], batch_size=9)
    finally:
        for handle in watched:
            handle.remove()
    assert called == [0, 0, 1, 2]
    assert vlm.interventions.identity == []


def test_samples_chosen_already_are_taken_as_they_are(vlm, bench):
    own = fit_layer_by_layer(vlm, "mean-shift", bench.choose(4, 1), layers="first", seed=5)
    assert own.fitted_on["samples"] == 4
    assert own.fitted_on["seed"] == 1
    assert own.fitted_on["settings"]["seed"] == 5


def test_an_unknown_map_or_site_is_known_before_the_model_runs(vlm, bench):
    with pytest.raises(UserError, match="unknown map 'coral2'; did you mean 'coral'"):
        fit_layer_by_layer(vlm, "coral2", bench)
    with pytest.raises(UserError, match="unknown site 'keys'; did you mean 'key'"):
        fit_layer_by_layer(vlm, "coral", bench, site="keys")
