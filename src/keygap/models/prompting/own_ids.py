"""The ids that a processor makes of the same messages, called as its users call it.

Every prompt is compared with them, so that no step of keygap's own (marks, the tokenizer that reads
them, the way in which the processor is called) can change what the model sees. The processor is
called with the tokenizer that it came with, and reuses the pixels that were made already.

A processor with a chat template is called through ``apply_chat_template`` where that works, and
otherwise with the rendered text, as one without a template is.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from transformers import ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece
from keygap.models.prompting.facts import Shown
from keygap.models.prompting.special import Specials
from keygap.models.prompting.template import Template
from keygap.models.prompting.tokenizer import TOKENIZING

REFUSALS = (ValueError, LookupError, RuntimeError, ArithmeticError, OSError, TypeError)


@dataclass(frozen=True)
class OwnCall:
    """Calls a processor as its users do.

    Attributes:
        processor: the model's processor with its own tokenizer (``processing.with_pixels``).
        template: writes the prompts.
        specials: spellings of special tokens, which keygap alone encodes as text.
    """

    processor: ProcessorMixin = field(repr=False)
    template: Template
    specials: Specials = field(repr=False)

    def ids(
        self, prompts: Sequence[Sequence[Piece]], shown: Sequence[Sequence[Shown]]
    ) -> list[np.ndarray]:
        """The ids of each prompt, without padding, from ``apply_chat_template``.

        Raises:
            Exception: whatever the processor raises.
        """
        conversations = [
            self.template.messages(prompt, [one for one in own if isinstance(one, Image.Image)])
            for prompt, own in zip(prompts, shown, strict=True)
        ]
        taken = inspect.signature(type(self.processor).apply_chat_template).parameters
        padding: dict[str, Any] = {"padding": True}
        if "processor_kwargs" in taken:
            padding = {"processor_kwargs": padding}
        with TOKENIZING:
            made = self.processor.apply_chat_template(
                conversations,
                chat_template=self.template.source,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **padding,
                **self.template.arguments,
            )
        return without_padding(made)

    def comparable(self, prompt: Sequence[Piece]) -> bool:
        """Whether a prompt spells no special token as text, which a processor reads as one."""
        texts = [piece.text for piece in prompt if piece.kind == "text"]
        texts.append(self.template.system or "")
        return not any(self.specials.are_in(text) for text in texts)


def without_padding(made: Any) -> list[np.ndarray]:
    """The ids of each prompt of model inputs."""
    ids, mask = (np.asarray(made[name]) for name in ("input_ids", "attention_mask"))
    return [row[kept.astype(bool)] for row, kept in zip(ids, mask, strict=True)]


def refuse_other_ids(made: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> None:
    """Refuse a prompt whose ids are not those of the processor.

    Raises:
        BadSample: they differ; says where first.
    """
    for mine, theirs in zip(made, own, strict=True):
        if np.array_equal(mine, theirs):
            continue
        both = min(len(mine), len(theirs))
        differ = np.flatnonzero(mine[:both] != theirs[:both])
        first = int(differ[0]) if len(differ) else both
        raise BadSample(
            f"the prompt has {len(mine)} ids and the processor makes {len(theirs)} of the same "
            f"messages; they differ from position {first} on"
        )
