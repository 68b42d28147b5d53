"""Progress of loading a model: keygap's own, in place of the bars of transformers.

transformers draws bars of its own while it reads weights and unpacks GGUF files. Beside keygap's
they would destroy each other, and in the log of a batch job each redraw is a line. So its loops are
shown like keygap's own: as a bar, in a notebook, or as a line now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from huggingface_hub.utils import are_progress_bars_disabled
from transformers import modeling_gguf_pytorch_utils as gguf
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import EmptyTqdm

from keygap.progress import step, track


class LoopOfTransformers(EmptyTqdm):
    """What transformers takes for a bar of tqdm: its loop, tracked by keygap."""

    def __init__(self, items: Any, what: str, total: int | None) -> None:
        super().__init__(items)
        self._what, self._total = what, total

    def __iter__(self) -> Iterator[Any]:
        if self._total is None:
            with step(self._what):
                yield from self._iterator
        else:
            yield from track(self._iterator, self._total, self._what)


@contextmanager
def shown_loading(name: str) -> Iterator[None]:
    """Show that a model is being loaded, by one progress display.

    Where downloads show bars of their own, as they do outside of the command line, those of keygap
    begin after them.

    Args:
        name: of the model.
    """
    before = transformers_logging.set_tqdm_hook(_tracked)
    unpacking = gguf.tqdm
    gguf.tqdm = transformers_logging.tqdm  # it takes tqdm's own, past the hook
    try:
        if are_progress_bars_disabled():
            with step(f"loading {name}"):
                yield
        else:
            yield
    finally:
        gguf.tqdm = unpacking
        transformers_logging.set_tqdm_hook(before)


def _tracked(factory: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The hook of transformers: a loop that keygap shows, or the bar that it asked for."""
    items = arguments[0] if arguments else named.get("iterable")
    if items is None:  # moved by hand; transformers loads nothing in this way today
        return factory(*arguments, **named)
    total = named.get("total", len(items) if isinstance(items, Sized) else None)
    what = str(named.get("desc") or "loading").rstrip(". :")
    return LoopOfTransformers(items, what[:1].lower() + what[1:], total)
