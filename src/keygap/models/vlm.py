"""A loaded model and its processor, behind one interface for all families.

What reads or changes a model goes through ``VLM.forward`` or ``VLM.generate`` with a labelled
batch, so that interventions know which token is at which position.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from keygap.display import as_html, brief, ranges
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.connector import Connector
from keygap.models.decoder_layer import Attends, DecoderLayer
from keygap.models.interventions import InterventionStack
from keygap.models.prompting.prompter import Prompter
from keygap.models.running import as_it_is_read, computes_in
from keygap.text import first_line

# what a model raises for inputs that it cannot use
_REFUSALS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)
_SIZES = ("heads", "key_heads", "head_dim")
LAYER_NAMES = ("first", "middle", "last", "all")


@dataclass(frozen=True)
class VLM:
    """A vision-language model that keygap can read.

    Attributes:
        name: what the user asked for: Hub id, folder or ``micro:CONNECTOR``.
        model: the loaded model.
        processor: the model's processor.
        revision: the commit of a Hub model, None for a folder.
        decoder: the module that owns the text layers inside ``model``.
        layers: the layers of the text stack in order.
        prompter: turns samples into labelled batches.
        connector: what maps vision features to text width, None where there is none.
        architecture: transformers' name of the model family.
        fusion: how image and text meet: ``sequence``, ``early fusion``, ``cross-attention`` or
            ``encoder``.
        loaded: the arguments of ``kg.load`` that load it again, with the device that was chosen;
            None for a model that the caller loaded.
    """

    name: str
    model: PreTrainedModel
    processor: ProcessorMixin
    revision: str | None
    decoder: nn.Module
    layers: tuple[DecoderLayer, ...]
    prompter: Prompter
    connector: Connector | None
    architecture: str = ""
    fusion: str = "sequence"
    loaded: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return brief(f"VLM({self.name!r}: {', '.join(f'{k} {v}' for k, v in self._facts.items())})")

    def _repr_html_(self) -> str:
        kinds: tuple[Attends, ...] = ("self", "cross", "none")
        rows = []
        for kind in kinds:
            if found := self.indices(kind):
                sizes = {each: getattr(self.layers[found[0]], each) for each in _SIZES}
                rows.append({"attends": kind, "layers": ranges(found), **sizes})
        caption = (
            f"{self.name}: {', '.join(f'{k} {v}' for k, v in self._facts.items())}. Layers by what "
            "they attend to, with the shape of the first of each kind."
        )
        return as_html(caption, pd.DataFrame(rows), self.interventions.identity)

    @property
    def _facts(self) -> dict[str, str]:
        return {
            "architecture": self.architecture,
            "layers": str(len(self.layers)),
            "connector": str(self.connector or "none"),
            "fusion": self.fusion,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    @property
    def device(self) -> torch.device:
        """Where the model wants its inputs."""
        if self.model.device.type != "meta":
            return self.model.device
        hooks = (getattr(module, "_hf_hook", None) for module in self.model.modules())
        places = (getattr(hook, "execution_device", None) for hook in hooks)
        return torch.device(next(place for place in places if place is not None))

    @property
    def dtype(self) -> torch.dtype:
        """What the text layers compute in. Other parts may be kept in another precision."""
        return computes_in(self.decoder)

    @cached_property
    def interventions(self) -> InterventionStack:
        """The interventions applied to this model, in order."""
        return InterventionStack(self.decoder, self.layers, is_encoder=self.fusion == "encoder")

    def layer_indices(self, wanted: Iterable[str | int], *, with_shared: bool = False) -> list[int]:
        """The absolute indices, sorted, of layers given by name or number.

        Where image keys are in cross-attention layers and text keys in the others, a name means
        one layer of each kind. A layer that attends to the keys of an earlier one is not another
        layer to read, and no name means it.

        Args:
            wanted: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
            with_shared: whether layers that attend to the keys of earlier ones count too, as they
                do where attention itself is changed.

        Raises:
            UserError: a name that does not exist, a number out of range, or one without attention
                or without keys of its own.
        """
        wanted = list(wanted)
        shared = {} if with_shared else self.shared
        for layer in wanted:
            number = int(layer) if str(layer).isdecimal() else None
            if number in shared:
                raise UserError(
                    f"layer {number} of {self.name} attends to the keys and values of layer "
                    f"{shared[number]} and has none of its own: ask for layer {shared[number]}"
                )
        own = [index for index in self.indices("self") if index not in shared]
        return resolve_layers(wanted, len(self.layers), self.name, own, self.indices("cross"))

    @property
    def shared(self) -> dict[int, int]:
        """The layers that attend to the keys and values of an earlier layer, and that layer."""
        return {layer.index: layer.shares for layer in self.layers if layer.shares is not None}

    def indices(self, attends: Attends) -> list[int]:
        """The layers that attend in one way: ``self``, ``cross`` or ``none``.

        Args:
            attends: ``self``, ``cross`` or ``none``.
        """
        return [layer.index for layer in self.layers if layer.attends == attends]

    def forward(
        self,
        batch: Batch | Mapping[str, Any],
        *,
        answers: Int[Tensor, "b t"] | None = None,
        **keywords: Any,
    ) -> Any:
        """Run one pass of the whole model, without a cache.

        Args:
            batch: what the prompter made: its inputs are moved to the model's device and dtype, and
                interventions see its labels. Or model inputs that are there already, without
                labels.
            answers: for an encoder-decoder, the ids that its decoder reads after its start token.
            keywords: further arguments of the model, such as ``logits_to_keep``.

        Returns:
            What the model returns.

        Raises:
            UserError: the model cannot run a prompt whose images have no pixels; or it is an
                encoder-decoder, whose decoder and not its prompt would have the batch's answers.
        """
        if isinstance(batch, Batch) and batch.answered and self.model.config.is_encoder_decoder:
            raise UserError(
                f"{self.name} is an encoder-decoder and reads no answer after its prompt: give the "
                "decoder its ids with forward(batch, answers=...)"
            )
        self.interventions.prepare(self, batch)
        with self.interventions.labels_of(batch if isinstance(batch, Batch) else None):
            inputs = self.inputs_of(batch)
            start = self._decoder_start(inputs)
            if answers is not None:
                (name, ids), *_ = start.items()
                start = {name: torch.cat([ids, answers.to(ids)], dim=1)}
            with as_it_is_read(self.model), self._named(batch):
                return self.model(**inputs, **self._no_cache, **start, **keywords)

    def generate(self, batch: Batch, **keywords: Any) -> Any:
        """Generate from a batch whose labels interventions see; generated tokens are answers.

        Args:
            batch: what the prompter made.
            keywords: arguments of transformers' ``generate``.

        Returns:
            What transformers' ``generate`` returns.

        Raises:
            UserError: prompts of different lengths, which are padded where the answer would begin;
                an intervention that acts on the logits of one token; or the model cannot run a
                prompt whose images have no pixels.
        """
        if len({len(labels) for labels in batch.labels}) > 1:
            raise UserError(
                "prompts of different lengths are padded on the right, where an answer would "
                "begin: generate from prompts of one length, or one by one"
            )
        if reason := self.interventions.undecided:
            raise UserError(reason)
        self.interventions.prepare(self, batch)
        if self.device.type == "cuda":  # compiled code calls no hooks that are set later
            keywords = {"disable_compile": True, **keywords}
        generate: Any = self.model.generate
        with (
            self.interventions.labels_of(batch),
            as_it_is_read(self.model),
            self._named(batch),
        ):
            return generate(**self._read_by_generate(self.inputs_of(batch)), **keywords)

    def _read_by_generate(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs that transformers' ``generate`` takes, which refuses those of unknown names.

        A pass without a cache ignores them.
        """
        methods: list[Any] = [self.model.forward, self.model.generate]
        methods += [getattr(self.model, "prepare_inputs_for_generation", self.model.forward)]
        named = {name for method in methods for name in inspect.signature(method).parameters}
        return {name: value for name, value in inputs.items() if name in named}

    @contextmanager
    def _named(self, batch: Batch | Mapping[str, Any]) -> Iterator[None]:
        """Name the model where it refuses a prompt whose images have no pixels."""
        try:
            yield
        except _REFUSALS as error:
            pictures = batch.pictures if isinstance(batch, Batch) else "shown"
            if pictures == "shown" or isinstance(error, (UserError, torch.OutOfMemoryError)):
                raise
            raise UserError(
                f"{self.name} cannot run a prompt with pictures {pictures!r} "
                f"({type(error).__name__}: {first_line(error)}): leave this condition out"
            ) from error

    def inputs_of(self, batch: Batch | Mapping[str, Any]) -> dict[str, Any]:
        """A batch's model inputs on the model's device, floats in its dtype.

        Args:
            batch: labelled prompts, or plain model inputs, which are not moved.
        """
        if isinstance(batch, Batch):
            inputs = BatchFeature(dict(batch.inputs))  # moving changes a BatchFeature itself
            if self.device.type == "cuda":  # cast there, after a copy that is not waited for
                inputs = inputs.to(self.device, non_blocking=True)
            return dict(inputs.to(self.device, dtype=self.model.dtype))
        return dict(batch)

    def _decoder_start(self, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What the decoder of an encoder-decoder begins with; nothing for other models."""
        config = self.model.config
        named = inspect.signature(self.model.forward).parameters
        if not config.is_encoder_decoder or "decoder_input_ids" not in named:
            return {}
        ids = inputs["input_ids"]
        generation: Any = self.model.generation_config
        known = (
            getattr(config, "decoder_start_token_id", None),
            generation.decoder_start_token_id,
            generation.bos_token_id,  # what generation begins with where there is no start token
            0,
        )
        start = next(one for one in known if one is not None)
        return {"decoder_input_ids": ids.new_full((len(ids), 1), start)}

    @cached_property
    def _no_cache(self) -> dict[str, bool]:
        named = inspect.signature(self.model.forward).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in named.values())
        return {"use_cache": False} if "use_cache" in named or open_ended else {}


def resolve_layers(
    wanted: Iterable[str | int],
    count: int,
    model: str,
    attending: Sequence[int] | None = None,
    across: Sequence[int] = (),
) -> list[int]:
    """The absolute indices, sorted, of layers given by name or number.

    Args:
        wanted: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        count: layers of the text stack.
        model: the model's name, for messages.
        attending: the layers with self-attention, by default all; a name chooses among them.
        across: the layers that attend to image features; a name also chooses among them.

    Raises:
        UserError: a name that does not exist, a number out of range, or no layer at all.
    """
    kinds = [range(count) if attending is None else attending, across]
    usable = sorted(index for kind in kinds for index in kind)
    named: dict[str, list[int]] = {
        "first": [index for kind in kinds for index in kind[:1]],
        "middle": [index for kind in kinds for index in kind[len(kind) // 2 :][:1]],
        "last": [index for kind in kinds for index in kind[-1:]],
        "all": usable,
    }
    indices: set[int] = set()
    for layer in wanted:
        if layer in named:
            indices.update(named[str(layer)])
            continue
        try:
            number = int(layer)
        except ValueError:
            raise UserError(
                f"unknown layer {layer!r}: use a number or one of {', '.join(LAYER_NAMES)}"
            ) from None
        if not 0 <= number < count:
            raise UserError(
                f"layer {number} is out of range: {model} has {count} layers (0 to {count - 1})"
            )
        if number not in usable:
            raise UserError(
                f"layer {number} of {model} has no attention; layers that attend: "
                f"{', '.join(map(str, usable))}"
            )
        indices.add(number)
    if not indices:
        raise UserError("no layer was asked for: name at least one, such as first")
    return sorted(indices)
