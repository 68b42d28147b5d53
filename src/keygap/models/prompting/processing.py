"""One processor, called once without marks and once with them.

The model inputs come from the call without marks, so that they are what the processor makes of the
prompt and nothing else. The call with marks only tells the roles and images of the same ids; it
uses the pixels of the first call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from keygap.models.prompting.special import Specials
from keygap.models.prompting.tokenizer import MarkedTokenizer


@dataclass
class _Pixels:
    """What the image and video processors made in the first call of a block."""

    made: list[Any] = field(default_factory=list)
    used: int | None = None  # None: the first call is not over


_PIXELS: ContextVar[_Pixels | None] = ContextVar("keygap_pixels", default=None)


@contextmanager
def pixels_once() -> Iterator[_Pixels]:
    """Reuse what the image and video processors made, after ``reuse`` was called.

    The block belongs to the current thread (or asyncio task).

    Yields:
        The pixels of the block, to be given to ``reuse``.
    """
    pixels = _Pixels()
    token = _PIXELS.set(pixels)
    try:
        yield pixels
    finally:
        _PIXELS.reset(token)


def reuse(pixels: _Pixels) -> None:
    """From now on the calls of this block give the pixels of its first call, in the same order."""
    pixels.used = 0


class _Reusing:
    """An image or video processor that gives the same pixels again (see ``pixels_once``)."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_processor":  # not set yet while it is copied
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pixels = _PIXELS.get()
        if pixels is not None and pixels.used is not None:
            pixels.used += 1
            return copy.copy(pixels.made[pixels.used - 1])
        made = self._processor(*args, **kwargs)
        if pixels is not None:
            pixels.made.append(copy.copy(made))  # the caller may remove keys
        return made


def prepared(processor: ProcessorMixin, specials: Specials) -> ProcessorMixin:
    """A copy of a processor that reads marks and can reuse pixels.

    Args:
        processor: the model's processor, which is not changed.
        specials: spellings of special tokens that are text in a sample.

    Raises:
        UserError: a tokenizer does not report which characters a token covers.
    """
    copied = with_pixels(processor)
    for name, part in vars(processor).items():
        if isinstance(part, PreTrainedTokenizerBase):  # a Q-Former may have its own
            main = part is processor.tokenizer
            setattr(copied, name, MarkedTokenizer(part, specials, reports=main))
    return copied


def with_pixels(processor: ProcessorMixin) -> ProcessorMixin:
    """A copy of a processor that can reuse pixels, with the tokenizers that it came with."""
    copied = copy.copy(processor)
    for name, part in vars(processor).items():
        if name in ("image_processor", "video_processor") and callable(part):
            setattr(copied, name, _Reusing(part))
    return copied
