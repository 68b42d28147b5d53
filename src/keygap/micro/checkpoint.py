"""``micro:CONNECTOR`` as an ordinary checkpoint folder, built once in the user's cache.

keygap loads the folder like any other model: ``from_pretrained`` reads it with its processor and
chat template. The folder appears by an atomic rename. Its name contains a digest of the weights and
the code that it was built from, so that a new version of either gives a new folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from importlib import resources
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

from keygap import interrupts
from keygap.errors import unknown
from keygap.micro import connectors, files, packaged
from keygap.micro.connectors import CONNECTORS, IMAGE_SIDE, PATCH_SIDE, architecture
from keygap.micro.files import cache_root

IMAGE_TOKEN = "<image>"
# The ChatML format that the language model was tuned on, without its default system prompt, and
# with images.
CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def connector_weights(connector: str) -> dict[str, torch.Tensor]:
    """Load the trained connector that ships with keygap: float16, names relative to the module."""
    with resources.as_file(
        resources.files("keygap.micro") / "weights" / f"{connector}.safetensors"
    ) as path:
        return load_file(path)


def assemble(
    connector: str,
) -> tuple[FastVlmForConditionalGeneration, LlavaProcessor]:
    """Build the whole model in bfloat16 with an untrained connector, and its processor."""
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
    with torch.no_grad():  # image features always replace this embedding
        model.get_input_embeddings().weight[image_token_id] = 0
    vision = model.model.vision_tower.timm_model
    names = vision.state_dict().keys()
    vision.load_state_dict(dict(zip(names, packaged.vision_state().values(), strict=True)))
    return model.eval(), processor(tokenizer)


def processor(tokenizer: PreTrainedTokenizerBase) -> LlavaProcessor:
    """Build LLaVA's processor for 128 x 128 pixels, scaled (x - 127) / 128 for the vision model."""
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    image_processor = CLIPImageProcessor(
        size=side,
        do_center_crop=False,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        do_convert_rgb=True,
    )
    if tokenizer.pad_token is None:  # some releases of transformers do not read it from GGUF
        tokenizer.pad_token = tokenizer.eos_token
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
    """Return the checkpoint folder of ``micro:CONNECTOR``, built on the first call.

    Raises:
        UserError: there is no such connector, or a package of the extra ``micro`` or the language
            model is missing.
    """
    if connector not in CONNECTORS:
        known = [f"micro:{name}" for name in CONNECTORS]
        raise unknown("model", f"micro:{connector}", known)
    connectors.register()  # this process must know the class of a folder that another one built
    weights = connector_weights(connector)
    folder = cache_root() / f"micro-{connector}-{_digest(weights)}"
    if not folder.is_dir():
        model, model_processor = assemble(connector)
        model.model.multi_modal_projector.load_state_dict(weights)
        _save(model, model_processor, folder)
    return folder


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """Hash a connector's weights and the code that builds a model around them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    for module in (__file__, connectors.__file__, files.__file__, packaged.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:12]


def _save(
    model: FastVlmForConditionalGeneration, model_processor: LlavaProcessor, folder: Path
) -> None:
    """Write a model and its processor to a folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # not of tempfile, whose folders other users of a shared cache cannot read
    scratch = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    with interrupts.tidied():
        try:
            scratch.mkdir()
            model.save_pretrained(scratch)
            model_processor.save_pretrained(scratch)
            os.rename(scratch, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has built the same folder meanwhile
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
