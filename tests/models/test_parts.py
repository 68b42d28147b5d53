"""A model of a user's own: what is missing is said in one line, and parts can be named."""

from __future__ import annotations

from typing import Any, cast

import pytest
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import keygap as kg
from keygap.errors import UserError
from keygap.models.attention_tap import calls_attention_function

from .zoo import BY_FAMILY


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


@pytest.fixture(scope="module")
def unnamed():
    """A model that does not say where its text embedding and its decoder are."""
    model, processor = BY_FAMILY["llava"].build()

    def get_input_embeddings(self):
        raise NotImplementedError

    own = {"get_input_embeddings": get_input_embeddings, "get_decoder": lambda self: self}
    model.__class__ = type("Unnamed", (type(model),), own)
    return model, processor


def test_a_plain_module_is_told_what_it_lacks(unnamed):
    with pytest.raises(UserError, match="no configuration and no device and no dtype") as error:
        kg.load(cast(Any, Plain()), unnamed[1])
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(unnamed):
    with pytest.raises(UserError, match="int is not a model"):
        kg.load(cast(Any, 42), unnamed[1])


def test_a_missing_embedding_is_named_with_the_remedy(unnamed):
    with pytest.raises(UserError, match=r"text embedding is .*parts=\{'embedding'") as error:
        kg.load(*unnamed)
    assert "\n" not in str(error.value)


TEXT, LAYERS = "model.language_model", "model.language_model.layers"


@pytest.mark.parametrize(
    "parts",
    [
        {"embedding": f"{TEXT}.embed_tokens"},
        {"decoder": TEXT},
        {"decoder": LAYERS, "vision": "model.vision_tower"},
        {"decoder": TEXT, "connector": "model.multi_modal_projector"},
    ],
)
def test_parts_can_be_named(unnamed, parts):
    model, processor = unnamed
    vlm = kg.load(model, processor, parts=parts)
    assert vlm.decoder is model.model.language_model
    text: Any = model.model.language_model
    assert [layer.block for layer in vlm.layers] == list(text.layers)
    assert vlm.connector is not None
    assert vlm.connector.path == "model.multi_modal_projector"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"decoder": "model.langage_model"}, "did you mean 'model.language_model'"),
        ({"decodr": TEXT}, "unknown part of a model 'decodr'; did you mean 'decoder'"),
        ({"decoder": "model.multi_modal_projector"}, "in the decoder that was named"),
    ],
)
def test_a_wrong_name_is_one_line(unnamed, parts, line):
    with pytest.raises(UserError, match=line) as error:
        kg.load(*unnamed, parts=parts)
    assert "\n" not in str(error.value)


class Across(nn.Module):
    """Attends to the outputs of earlier layers, through the attention function and without keys."""

    def forward(self, states):
        return ALL_ATTENTION_FUNCTIONS.get_interface("eager", None)(self, states, states, states)


def test_attention_to_earlier_layers_is_not_the_attention_of_a_layer():
    model, processor = BY_FAMILY["llava"].build()
    layers = model.model.language_model.layers
    for layer in layers:
        layer.before_attention = Across()
        assert calls_attention_function(layer.before_attention)
    vlm = kg.load(model, processor)
    assert [layer.attention for layer in vlm.layers] == [layer.self_attn for layer in layers]
