"""``kg.load``: any vision-language model that transformers can load, ready to be read."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from keygap.errors import UserError
from keygap.models.connector import Connector, describe
from keygap.models.prompting.image_inputs import POSITION_MASK
from keygap.models.prompting.prompter import ImageTokens, Prompter
from keygap.models.text_stack import TextStack, attends_across, text_stack
from keygap.models.vlm import VLM

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
MICRO_PREFIX = "micro:"


def load(
    model: str | os.PathLike[str] | PreTrainedModel,
    processor: ProcessorMixin | None = None,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    system: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> VLM:
    """Load a model by Hub id, folder or ``micro:CONNECTOR``, or wrap one that is already loaded.

    Args:
        model: its name, or the loaded model itself (then give its processor too).
        processor: the processor that goes with a loaded model.
        dtype: ``bfloat16``, ``float16``, ``float32``, or ``auto``: the checkpoint's own on an
            accelerator, float32 on a CPU.
        device: where to put the whole model; by default an accelerator if there is one.
        device_map: accelerate's placement instead, such as ``auto``.
        revision: a Hub branch, tag or commit.
        trust_remote_code: run the repository's own Python. Off unless asked for by name.
        system: the text of a system message before every prompt.
        template_arguments: further arguments of the chat template, such as ``enable_thinking``.

    Raises:
        UserError: no such model, no processor with an image side and a chat template, or an
            architecture that cannot be read.
    """
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if not isinstance(model, str):
        if processor is None:
            raise UserError("a loaded model needs its processor: kg.load(model, processor)")
        name = model.config.name_or_path or type(model).__name__
        return wrap(model, processor, name, system, template_arguments)
    if dtype not in ("auto", *DTYPES):
        raise UserError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = device == "cpu" and device_map is None
    torch_dtype = DTYPES.get(dtype, torch.float32 if on_cpu else "auto")

    source = _source(model)
    remote = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **remote)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load model {model!r}: {_first_line(error)}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping and not trust_remote_code:
        raise UserError(
            f"model {model!r} ({config.model_type}) is not a vision-language model: transformers "
            "registers no image-text-to-text class for it"
        )
    try:
        processor = AutoProcessor.from_pretrained(source, **remote)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model {model!r} has no usable processor: {_first_line(error)}") from error
    try:
        both: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=torch_dtype,
            device_map=device_map or device,
            output_loading_info=True,
            **remote,
        )
    # a damaged file, no such device, not enough of its memory, a package that is not there
    except (OSError, ImportError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load model {model!r}: {_first_line(error)}") from error
    loaded, found = both
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{len(missing)} weights of model {model!r} are not in its checkpoint, the first is "
            f"{missing[0]}: transformers would make them up at random"
        )
    return wrap(loaded, processor, model, system, template_arguments)


def wrap(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    name: str,
    system: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> VLM:
    """A VLM out of a model and a processor that are already there (arguments: see ``load``).

    Raises:
        UserError: the processor or the architecture lacks what reading keys needs.
    """
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UserError(
            f"{name}: its processor ({type(processor).__name__}) has no image side or no "
            "tokenizer, so prompts with images cannot be made"
        )
    stack = text_stack(model)
    if across := attends_across(stack):
        raise UserError(
            f"{name}: its text layers attend across to image features in modules of their own "
            f"({across}), and no position of the prompt stands for the image: image keys and text "
            "keys are never in one attention, so they cannot be compared"
        )
    connector, fusion = describe(model, stack.decoder), _fusion(model, stack)
    image_tokens = _image_tokens(model, processor, connector, fusion, name)
    return VLM(
        name=name,
        model=model.eval(),
        processor=processor,
        revision=getattr(model.config, "_commit_hash", None),
        decoder=stack.decoder,
        layers=stack.layers,
        prompter=Prompter(processor, image_tokens, system, template_arguments),
        connector=connector,
        architecture=model.config.model_type,
        fusion=fusion,
    )


def _image_tokens(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    connector: Connector | None,
    fusion: str,
    name: str,
) -> ImageTokens:
    """Which ids stand for image features, and how a prompt spells an image."""
    ids = [
        value
        for source in (model.config, processor)
        for attribute in ("image_token_id", "image_token_index", "image_patch_id")
        if isinstance(value := getattr(source, attribute, None), int)
    ]
    arguments = inspect.signature(model.forward).parameters
    if not ids and POSITION_MASK not in arguments:
        raise UserError(
            f"{name}: neither its configuration nor its processor names an image token, so no "
            "position of its prompts is known to stand for the image, and image keys cannot be "
            "told from text keys"
        )
    spelling = getattr(processor, "image_token", None)
    if ids and not spelling:
        spelling = processor.tokenizer.convert_ids_to_tokens(ids[0])
    vision = getattr(model.config, "vision_config", None)
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    learned = {path.rpartition(".")[2] for path, _ in model.named_parameters()}
    return ImageTokens(
        ids=tuple(ids[:1]),
        placeholder=str(spelling or ""),
        video_ids=_video_ids(model, processor),
        video_placeholder=str(getattr(processor, "video_token", None) or ""),
        in_prompt=fusion != "cross-attention",
        types="mm_token_type_ids" in arguments,
        limit=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        row_ends="image_newline" in learned,
        begin=int("image_begin" in learned),
        end=len(learned & {"image_end", "view_separator"}),
        side=side // patch if isinstance(side, int) and isinstance(patch, int) else None,
        mixed=connector is not None and connector.queries,
    )


def _video_ids(model: PreTrainedModel, processor: ProcessorMixin) -> tuple[int, ...]:
    ids = [
        value
        for source in (model.config, processor)
        for attribute in ("video_token_id", "video_token_index")
        if isinstance(value := getattr(source, attribute, None), int)
    ]
    return tuple(ids[:1])


def _fusion(model: PreTrainedModel, stack: TextStack) -> str:
    if any(layer.attends == "cross" for layer in stack.layers):
        return "cross-attention"
    if stack.is_encoder:
        return "encoder"
    discrete = getattr(model.config, "vq_config", None) is not None
    return "early fusion" if discrete and not hasattr(model.config, "vision_config") else "sequence"


def _source(model: str) -> str:
    """What ``from_pretrained`` takes: a folder for ``micro:`` names, the name itself otherwise."""
    if model.startswith(MICRO_PREFIX):
        from keygap.micro.checkpoint import build

        return str(build(model.removeprefix(MICRO_PREFIX)))
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise UserError(f"no model folder at {model}")
    return str(Path(model).expanduser()) if model.startswith("~") else model


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
