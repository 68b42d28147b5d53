"""The three connectors of the embedded model, as classes of transformers.

``linear`` and ``mlp`` are FastVLM unchanged: its two-layer projector is a linear map when its
activation is the identity, and LLaVA-1.5's MLP when it is GELU. ``qformer`` is FastVLM with that
projector replaced by the Q-Former of BLIP-2. No published class connects a Q-Former to a
convolutional vision tower, so connecting the two is the only modelling code here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
)

from keygap.errors import unknown

CONNECTORS = ("linear", "mlp", "qformer")
VISION_CHANNELS = 1280
IMAGE_SIDE = 128
PATCH_SIDE = 32  # stride of the vision network: 128 / 32 gives a 4 x 4 grid
IMAGE_TOKENS = (IMAGE_SIDE // PATCH_SIDE) ** 2

QFORMER = {
    "vocab_size": 1,  # its text input is unused
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "cross_attention_frequency": 1,
    "encoder_hidden_size": VISION_CHANNELS,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "use_qformer_text_input": False,
}


class QFormerVlmConfig(FastVlmConfig):
    """FastVLM's configuration, and that of a Q-Former as the plain dict ``qformer_config``."""

    model_type = "keygap_qformer_vlm"


class QFormerProjector(nn.Module):
    """Learned queries attend to the vision features; a linear layer maps them to the text width."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        qformer = Blip2QFormerConfig(**config.qformer_config)
        queries = torch.randn(1, config.image_seq_length, qformer.hidden_size)
        self.query_tokens = nn.Parameter(queries)
        self.qformer = Blip2QFormerModel(qformer)
        self.language_projection = nn.Linear(qformer.hidden_size, config.text_config.hidden_size)

    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        """Map features (images, patches, channels) to tokens (images, queries, text width)."""
        queries = self.query_tokens.expand(image_features.shape[0], -1, -1)
        output = self.qformer(query_embeds=queries, encoder_hidden_states=image_features)
        return self.language_projection(output.last_hidden_state)


class QFormerVlmForConditionalGeneration(FastVlmForConditionalGeneration):
    """FastVLM with a Q-Former as its projector."""

    config_class = QFormerVlmConfig

    def __init__(self, config: QFormerVlmConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = QFormerProjector(config)


def known_connector(name: str) -> str:
    """Return the name of a connector.

    Raises:
        UserError: there is no such connector.
    """
    if name not in CONNECTORS:
        raise unknown("connector", name, CONNECTORS)
    return name


def register() -> None:
    """Register the Q-Former variant, so that the auto classes of transformers load its folder."""
    AutoConfig.register(QFormerVlmConfig.model_type, QFormerVlmConfig, exist_ok=True)
    AutoModelForImageTextToText.register(
        QFormerVlmConfig, QFormerVlmForConditionalGeneration, exist_ok=True
    )
    AutoProcessor.register(QFormerVlmConfig, LlavaProcessor, exist_ok=True)


def architecture(
    connector: str, text_config: dict, image_token_id: int
) -> FastVlmForConditionalGeneration:
    """Build an embedded model with untrained weights.

    Args:
        connector: one of ``CONNECTORS``.
        text_config: the language model's configuration as a dict.
        image_token_id: the id that each image token has in the prompt.
    """
    vision_config: dict[str, Any] = {
        "model_type": "timm_wrapper",
        "architecture": "tf_efficientnet_lite0",
        "do_pooling": False,
        "hidden_size": VISION_CHANNELS,
        "num_classes": 0,
    }
    common: dict[str, Any] = {
        "vision_config": vision_config,
        "text_config": text_config,
        "image_token_index": image_token_id,
        "image_seq_length": IMAGE_TOKENS,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    if connector == "qformer":
        common["qformer_config"] = QFORMER
        config: FastVlmConfig = QFormerVlmConfig(**common)
    else:
        activation = {"linear": "linear", "mlp": "gelu"}[connector]
        config = FastVlmConfig(**common, projector_hidden_act=activation)
    register()
    # Module.to(bfloat16) would also round the rotary frequencies
    return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
