"""Which class of transformers loads a model, and whether its checkpoint was loaded whole.

A vision-language model may be registered for image-text-to-text, for multimodal or causal language
modelling, or have its class in a repository (remote code), which runs only if the user allows it.

transformers loads a checkpoint that does not fit its configuration: weights that are missing are
made at random, and weights that have no place are left out. In both cases the result is another
model, so both are errors here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
)

from keygap.errors import UserError

CLASSES: tuple[Any, ...] = (
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForCausalLM,
)
_VISION = re.compile(r"vis(ion|ual)|image|img|pixel|vq")  # in names of a configuration's values
# Buffers of old checkpoints that models compute by themselves today.
_COMPUTED = re.compile(r"(inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias)$")


def model_class(config: PretrainedConfig, name: str, trust_remote_code: bool) -> Any:
    """The auto class of transformers that loads the model of a configuration.

    Args:
        config: the model's configuration.
        name: the model's name, for messages.
        trust_remote_code: whether code from the model's repository may run.

    Raises:
        UserError: transformers has no class for it that reads images, or only in the repository.
    """
    kind = f"model {name!r} ({config.model_type})"
    remote: Mapping[str, Any] = getattr(config, "auto_map", None) or {}
    in_repository = [each for each in CLASSES if each.__name__ in remote]
    if trust_remote_code and in_repository:
        return in_repository[0]
    registered = [each for each in CLASSES if type(config) in each._model_mapping]
    if registered and (registered[0] is AutoModelForImageTextToText or has_vision(config)):
        return registered[0]
    if in_repository:
        raise UserError(
            f"{kind} is defined by code in its repository, which keygap runs only with "
            "trust_remote_code=True (--trust-remote-code): read that code first"
        )
    if trust_remote_code and remote:
        raise UserError(
            f"{kind}: its repository defines {', '.join(remote)}, and none of "
            f"{', '.join(each.__name__ for each in CLASSES)}: load it yourself and call "
            "kg.load(model, processor)"
        )
    raise UserError(
        f"{kind} is not a vision-language model: transformers registers no image-text-to-text "
        "class for it, and its configuration names nothing of images"
    )


def has_vision(config: PretrainedConfig) -> bool:
    """Whether a configuration has values about images."""
    return any(_VISION.search(str(name)) for name in config.to_dict())


def refuse_partial(model: nn.Module, found: Mapping[str, Collection[str]], name: str) -> None:
    """Refuse a model whose checkpoint and configuration do not fit together.

    Weights that belong to none of the model's lists of layers (a head for another task) do not
    change what is read, so they are allowed.

    Args:
        model: the loaded model.
        found: transformers' loading information.
        name: the model's name, for messages.

    Raises:
        UserError: weights are missing, or weights of layers are left out.
    """
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{len(missing)} weights of model {name!r} are not in its checkpoint, the first is "
            f"{missing[0]}: transformers would initialise them at random"
        )
    quantized = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    left_out = [] if quantized else sorted(_without_place(model, found["unexpected_keys"]))
    if left_out:
        raise UserError(
            f"{len(left_out)} weights in the checkpoint of model {name!r} have no place in it, the "
            f"first is {left_out[0]}: its configuration describes a smaller model than the "
            "checkpoint holds (fewer layers, or none of its biases)"
        )


def _without_place(model: nn.Module, keys: Iterable[str]) -> list[str]:
    """Unexpected weights of layers: of further ones, or of further parts of one."""
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return [
        key
        for key in keys
        if any(key.startswith(f"{path}.") for path in lists) and not _COMPUTED.search(key)
    ]
