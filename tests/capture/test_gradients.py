"""Gradients flow from what is captured to pixels, embeddings and an intervention's parameters."""

from __future__ import annotations

import pytest
import torch

from keygap.capture import Capture
from keygap.models.interventions import Intervention
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY


class Learned(Intervention):
    """Adds a learned vector to the keys of images."""

    name = "learned"

    def __init__(self, site, vector):
        self.sites, self.layers, self.vector = (site,), [0], vector

    def change(self, vectors, site, layer, tokens):
        return vectors + self.vector * tokens.are(("image",))[..., None, None]


@pytest.fixture(scope="module")
def llava():
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny llava")
    vlm.model.requires_grad_(False)
    return vlm


@pytest.mark.parametrize("stop_early", [True, False])
@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_they_reach_pixels_and_embeddings(llava, site, stop_early):
    batch = llava.prompter(check_samples())
    pixels = batch.inputs["pixel_values"].requires_grad_()
    embedding = llava.model.get_input_embeddings().weight.requires_grad_()
    try:
        with Capture(llava, [site], [1], gradients=True, stop_early=stop_early) as capture:
            read = capture(batch)[site, 1]
        image = torch.from_numpy(batch.labels[0].modality == "image")
        read[0, : len(image)][image].pow(2).sum().backward()
        assert pixels.grad[0].abs().sum() > 0
        assert pixels.grad[1].abs().sum() == 0  # the other sample's
        assert embedding.grad.abs().sum() > 0
    finally:
        embedding.requires_grad_(False)
        embedding.grad = None


@pytest.mark.parametrize(("changed", "read_at"), [("k_proj", "key"), ("key", "key")])
def test_they_reach_an_intervention(llava, changed, read_at):
    """Keys of layer 0 move with the vector; RoPE keeps lengths, so does the gradient's norm."""
    batch = llava.prompter(check_samples()[:1])
    vector = torch.zeros(2, 16, requires_grad=True)
    layer = 0
    with (
        llava.interventions.applied(Learned(changed, vector)),
        Capture(llava, [read_at, "hidden"], [layer, 2], gradients=True) as capture,
    ):
        read = capture(batch)
    key = read[read_at, layer]
    weights = torch.randn(key.shape, generator=torch.Generator().manual_seed(0))
    (key * weights).sum().backward(retain_graph=True)
    if changed == "key":
        image = torch.from_numpy(batch.labels[0].modality == "image")
        torch.testing.assert_close(vector.grad, weights[0, image].sum(0))
    assert vector.grad.abs().sum() > 0
    vector.grad.zero_()
    read["hidden", 2].sum().backward()  # through attention, two layers on
    assert vector.grad.abs().sum() > 0


def test_none_are_kept_unless_asked_for(llava):
    batch = llava.prompter(check_samples()[:1])
    batch.inputs["pixel_values"].requires_grad_()
    with Capture(llava, ["key"], [1]) as capture:
        assert not capture(batch)["key", 1].requires_grad
    with torch.no_grad(), Capture(llava, ["key"], [1], gradients=True) as capture:
        assert not capture(batch)["key", 1].requires_grad
