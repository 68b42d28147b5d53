"""What can be named as MODEL, in words. Nothing is loaded to list it."""

from __future__ import annotations

_PARTS = "SmolLM2-135M-Instruct with EfficientNet-Lite0, trained on easy-VQA"
MODELS = {
    "micro:linear": f"embedded model, image features through a linear map: {_PARTS}",
    "micro:mlp": f"embedded model, image features through a two-layer MLP: {_PARTS}",
    "micro:qformer": f"embedded model, image features through a Q-Former: {_PARTS}",
    "OWNER/NAME": "model on the Hugging Face Hub that transformers loads for image-text-to-text",
    "FOLDER": "the same, saved on this machine with save_pretrained, with its processor",
}
