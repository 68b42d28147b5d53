"""A model is read in evaluation mode and uncompiled, and given back as it was."""

from __future__ import annotations

import pytest
import torch

import keygap as kg
from keygap.capture.hooks import Capture
from keygap.selfcheck.batches import batches_of
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY


def read(model, processor) -> dict:
    vlm = kg.load(model, processor)
    with Capture(vlm, ["k_proj", "key", "hidden"], [0, 2], attention=True) as capture:
        return capture(vlm.prompter(check_samples()))


@pytest.fixture(scope="module")
def expected():
    return read(*BY_FAMILY["llava"].build())


def compiled(model, how: str):
    text = model.model.language_model
    if how == "whole":
        return torch.compile(model)
    if how == "in place":
        model.compile()
    elif how == "text model":
        model.model.language_model = torch.compile(text)
    elif how == "layers":
        for number, layer in enumerate(text.layers):
            text.layers[number] = torch.compile(layer)
    elif how == "forward":
        for layer in text.layers:
            layer.self_attn.forward = torch.compile(layer.self_attn.forward)
    elif how == "data parallel":
        return torch.nn.DataParallel(model)
    return model


HOW = [
    "in place",
    "data parallel",
    *(pytest.param(how, marks=pytest.mark.slow) for how in ("whole", "text model", "layers")),
    pytest.param("forward", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("how", HOW)
def test_a_wrapped_or_compiled_model_gives_the_same_vectors(expected, how):
    model, processor = BY_FAMILY["llava"].build()
    for key, vectors in read(compiled(model, how), processor).items():
        torch.testing.assert_close(vectors, expected[key])


def test_the_mode_of_every_module_is_restored(expected):
    model, processor = BY_FAMILY["llava"].build()
    model.config.text_config.attention_dropout = 0.5
    model.train()
    model.model.vision_tower.eval()
    for parameter in model.model.vision_tower.parameters():
        parameter.requires_grad_(False)
    before = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    implementation = model.config._attn_implementation
    for key, vectors in read(model, processor).items():
        torch.testing.assert_close(vectors, expected[key])
    assert batches_of(kg.load(model, processor)).passed
    assert [module.training for module in model.modules()] == before
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert model.config._attn_implementation == implementation
