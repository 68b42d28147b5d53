"""``micro:CONNECTOR`` as an ordinary transformers folder, built once in the user's cache.

From there on nothing in keygap treats it as special: ``from_pretrained`` loads it with its
processor and its chat template. The folder appears by an atomic rename, and its name carries a
digest of what it was built from, weights and code, so a new version of either is a new folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AddedToken,
    CLIPImageProcessor,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from keygap.errors import unknown
from keygap.micro import connectors, packaged
from keygap.micro.connectors import CONNECTORS, IMAGE_SIDE, PATCH_SIDE, architecture

IMAGE_TOKEN = "<image>"
# ChatML as the language model was tuned on, without its stock system prompt, and with images.
CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def cache_root() -> Path:
    """``$KEYGAP_CACHE``, else ``~/.cache/keygap`` (or under ``$XDG_CACHE_HOME``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "keygap"
    return Path(os.environ.get("KEYGAP_CACHE", default))


def connector_weights(connector: str) -> dict[str, torch.Tensor]:
    """The trained connector that ships with keygap, float16, names below the projector module."""
    with as_file(files("keygap.micro") / "weights" / f"{connector}.safetensors") as path:
        return load_file(path)


def assemble(
    connector: str,
) -> tuple[FastVlmForConditionalGeneration, LlavaProcessor]:
    """The whole model in bfloat16 with an untrained connector, and its processor."""
    language_model, tokenizer = packaged.language_model()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(IMAGE_TOKEN, special=True, normalized=False)]}
    )
    language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    text_config = language_model.config.to_dict()
    text_config.pop("quantization_config", None)
    text_config["vocab_size"] = len(tokenizer)
    image_token_id = len(tokenizer) - 1

    model: Any = architecture(connector, text_config, image_token_id)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.tie_weights()
    with torch.no_grad():  # the image token's own embedding is always overwritten: keep it inert
        model.get_input_embeddings().weight[image_token_id] = 0
    vision = model.model.vision_tower.timm_model
    names = vision.state_dict().keys()
    vision.load_state_dict(dict(zip(names, packaged.vision_state().values(), strict=True)))
    return model.eval(), processor(tokenizer)


def processor(tokenizer: PreTrainedTokenizerBase) -> LlavaProcessor:
    """LLaVA's processor at 128 x 128 pixels, scaled (x - 127) / 128 as the vision model wants."""
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    image_processor = CLIPImageProcessor(
        size=side,
        do_center_crop=False,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        do_convert_rgb=True,
    )
    tokenizer.padding_side = "left"
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )


def build(connector: str) -> Path:
    """The checkpoint folder of ``micro:CONNECTOR``, built on the first call.

    Raises:
        UserError: no such connector, or the packages with the frozen weights are missing.
    """
    if connector not in CONNECTORS:
        known = [f"micro:{name}" for name in CONNECTORS]
        raise unknown("model", f"micro:{connector}", known)
    connectors.register()  # a folder that an earlier process built is only read in this one
    weights = connector_weights(connector)
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    for module in (Path(__file__), Path(connectors.__file__), Path(packaged.__file__)):
        digest.update(module.read_bytes())
    folder = cache_root() / f"micro-{connector}-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder

    model, model_processor = assemble(connector)
    model.model.multi_modal_projector.load_state_dict(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(scratch)
        model_processor.save_pretrained(scratch)
        try:
            os.rename(scratch, folder)
        except OSError:  # another process built the same folder first
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
