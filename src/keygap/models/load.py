"""``kg.load``: load any vision-language model that transformers supports.

Whatever keeps a model from being read (no processor, no image token, an unknown architecture) is
said here, in one line, before a benchmark is opened.
"""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from keygap.errors import UserError
from keygap.models.connector import Connector, describe
from keygap.models.loading import shown_loading
from keygap.models.location import check_placement, is_on_cpu, source_of
from keygap.models.parts import named_parts, refuse_unusable, unwrapped
from keygap.models.prompting.image_inputs import POSITION_MASK
from keygap.models.prompting.prompter import ImageTokens, Prompter
from keygap.models.source import model_class, refuse_partial
from keygap.models.text_stack import TextStack, attends_across, text_stack
from keygap.models.vlm import VLM
from keygap.text import LONGEST, first_line

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# A damaged file, a device that does not exist or has too little memory, a package that is missing.
# A configuration or a pickle that makes no sense raises any of the others.
LOADING_ERRORS = (
    *(OSError, ImportError, ValueError, RuntimeError, SafetensorError),
    *(TypeError, LookupError, AttributeError, EOFError, pickle.UnpicklingError),
)


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
    parts: Mapping[str, str] | None = None,
) -> VLM:
    """Load a model by Hub id, folder or ``micro:CONNECTOR``, or wrap one that is already loaded.

    Args:
        model: its name, or the loaded model itself, which needs its processor.
        processor: the processor of a loaded model.
        dtype: ``bfloat16``, ``float16``, ``float32``, or ``auto``: the checkpoint's own on an
            accelerator, float32 on a CPU.
        device: where to put the whole model; by default a GPU if there is one.
        device_map: a placement by accelerate in place of one device, such as ``auto``.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether to run Python code from the model's repository.
        system: the text of a system message before every prompt.
        template_arguments: further arguments of the chat template, such as ``enable_thinking``.
        parts: paths of parts in the model that keygap does not find by itself: ``decoder`` (the
            module that owns the list of text layers, or that list), ``embedding``, ``vision`` or
            ``connector``.

    Returns:
        The model, ready to read from and to run.

    Raises:
        UserError: no such model, no processor with an image side and a chat template, a checkpoint
            that does not fit its configuration, or an architecture that cannot be read.
    """
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if not isinstance(model, str):
        loaded: Any = unwrapped(model)
        refuse_unusable(loaded)
        if processor is None:
            raise UserError("a loaded model needs its processor: kg.load(model, processor)")
        name = getattr(loaded.config, "name_or_path", None) or type(loaded).__name__
        return wrap(loaded, processor, name, system, template_arguments, parts)
    if dtype not in ("auto", *DTYPES):
        raise UserError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    check_placement(device, device_map)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch_dtype = DTYPES.get(dtype, torch.float32 if is_on_cpu(device_map or device) else "auto")

    with shown_loading(model):
        remote = {"revision": revision, "trust_remote_code": trust_remote_code}
        loaded, processor = _read(model, remote, dtype=torch_dtype, device_map=device_map or device)
    prompting: dict[str, Any] = {
        "system": system,
        "template_arguments": template_arguments,
        "parts": parts,
    }
    placed = {"device_map": device_map} if device_map else {"device": device}
    vlm = wrap(loaded, processor, model, **prompting)
    return replace(vlm, loaded={"model": model, "dtype": dtype, **placed, **remote, **prompting})


def _read(
    model: str, remote: dict[str, Any], **options: Any
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Read a model and its processor from a folder, the Hub or what is built once.

    Args:
        model: its name.
        remote: ``revision`` and ``trust_remote_code``, for every part.
        options: further arguments for the weights.

    Raises:
        UserError: as ``load``.
    """
    source, where = source_of(model, remote["revision"])
    remote = {**remote, **where}
    with _in_one_line(f"cannot load model {model!r}"):
        config = AutoConfig.from_pretrained(source, **remote)
    loads = model_class(config, model, remote["trust_remote_code"])
    with _in_one_line(f"model {model!r} has no usable processor"):
        processor = AutoProcessor.from_pretrained(source, **remote)
    with _in_one_line(f"cannot load model {model!r}"):
        loaded, found = loads.from_pretrained(
            source,
            output_loading_info=True,
            use_safetensors=True,  # a pickle can run code
            **options,
            **remote,
        )
    refuse_partial(loaded, found, model)
    return loaded, processor


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Turn what transformers raises while it loads something into a UserError."""
    try:
        yield
    except (*LOADING_ERRORS, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{what}: its repository contains custom code, which keygap runs only "
                "with trust_remote_code=True (--trust-remote-code): read that code first"
            ) from error
        raise UserError(f"{what}: {first_line(error, LONGEST)}") from error


def wrap(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    name: str,
    system: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    parts: Mapping[str, str] | None = None,
) -> VLM:
    """Make a VLM of a model and a processor that are already loaded.

    Args:
        model: the model; it is read in evaluation mode, and its own mode is restored.
        processor: its processor.
        name: what to call it in runs and messages.
        system: the text of a system message before every prompt.
        template_arguments: further arguments of the chat template.
        parts: paths of parts that the user has named.

    Raises:
        UserError: the processor or the architecture lacks what reading keys needs.
    """
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UserError(
            f"{name}: its processor ({type(processor).__name__}) has no image side or no "
            "tokenizer, so prompts with images cannot be made"
        )
    named = named_parts(model, parts)
    stack = text_stack(model, named)
    if across := attends_across(stack):
        raise UserError(
            f"{name}: its text layers attend across to image features in modules of their own "
            f"({across}), and no position of the prompt is the image's: image keys and text "
            "keys are never in one attention, so they cannot be compared"
        )
    connector = describe(model, stack.decoder, named.get("connector"))
    fusion = _fusion(model, stack)
    image_tokens = _image_tokens(model, processor, connector, fusion, name)
    return VLM(
        name=name,
        model=model,
        processor=processor,
        revision=getattr(model.config, "_commit_hash", None),
        decoder=stack.decoder,
        layers=stack.layers,
        prompter=Prompter(processor, image_tokens, system, template_arguments),
        connector=connector,
        architecture=str(getattr(model.config, "model_type", None) or type(model).__name__),
        fusion=fusion,
    )


def _image_tokens(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    connector: Connector | None,
    fusion: str,
    name: str,
) -> ImageTokens:
    """Which ids image features replace, and how a prompt spells an image."""
    ids = _token_ids(model, processor, ("image_token_id", "image_token_index", "image_patch_id"))
    arguments = inspect.signature(model.forward).parameters
    if not ids and POSITION_MASK not in arguments:
        raise UserError(
            f"{name}: neither its configuration nor its processor names an image token, so no "
            "position of its prompts is known to be the image's, and image keys cannot be told "
            "from text keys"
        )
    spelling = getattr(processor, "image_token", None)
    if ids and not spelling:
        spelling = processor.tokenizer.convert_ids_to_tokens(ids[0])
    vision = getattr(model.config, "vision_config", None)
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    learned = {path.rpartition(".")[2] for path, _ in model.named_parameters()}
    return ImageTokens(
        ids=ids,
        placeholder=str(spelling or ""),
        video_ids=_token_ids(model, processor, ("video_token_id", "video_token_index")),
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


def _token_ids(
    model: PreTrainedModel, processor: ProcessorMixin, names: tuple[str, ...]
) -> tuple[int, ...]:
    """The first id that the configuration or the processor has under one of these names."""
    found = [
        value
        for source in (model.config, processor)
        for name in names
        if isinstance(value := getattr(source, name, None), int)
    ]
    return tuple(found[:1])


def _fusion(model: PreTrainedModel, stack: TextStack) -> str:
    """How image and text meet, see ``VLM``."""
    if any(layer.attends == "cross" for layer in stack.layers):
        return "cross-attention"
    if stack.is_encoder:
        return "encoder"
    discrete = getattr(model.config, "vq_config", None) is not None
    return "early fusion" if discrete and not hasattr(model.config, "vision_config") else "sequence"
