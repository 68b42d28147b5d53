"""The frozen halves of the embedded model, loaded from files that others publish."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from keygap.micro.files import EXTRA, NEEDED_BY, language_file, vision_file
from keygap.optional import require


def language_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load SmolLM2-135M-Instruct in bfloat16, with its GGUF weights unpacked to dense ones."""
    require("gguf", EXTRA, NEEDED_BY)
    path = language_file()
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
    }
    unpack: dict[str, Any] = {}
    try:  # transformers 5.20 and later keep GGUF weights packed by default
        from transformers import GgufConfig

        unpack["quantization_config"] = GgufConfig(dequantize=True)
    except ImportError:
        pass
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **unpack)
    return model, AutoTokenizer.from_pretrained(**source)


def vision_state() -> dict[str, torch.Tensor]:
    """Load EfficientNet-Lite0's tensors in their published order, without the classifier's two.

    The file is a PyTorch archive; ``weights_only`` permits tensors and nothing else.
    """
    require("timm", EXTRA, NEEDED_BY)  # the network that takes the tensors
    state = torch.load(vision_file(), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}
