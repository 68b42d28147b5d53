"""What a step of the self-check finds, and how it runs a model that may refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from keygap.benchmarks.sample import BadSample
from keygap.errors import UserError
from keygap.models.vlm import VLM
from keygap.text import first_line

# ``not run``: nothing is known; ``does not apply``: there is nothing to check in this model;
# ``one by one``: samples change each other in a batch, so each is read in a pass of its own.
Result = Literal["pass", "FAIL", "not run", "does not apply", "one by one"]
PASS: Result = "pass"
FAIL: Result = "FAIL"
NOT_RUN: Result = "not run"
NOT_HERE: Result = "does not apply"
ALONE: Result = "one by one"

Outcome = tuple[Result, str]  # what a step finds, and details

# Differences between two ways of computing the same, relative to the largest value (of each
# dimension, see ``vector_error``).
NOISE = {torch.float32: 2e-4, torch.float64: 1e-6, torch.float16: 2e-2, torch.bfloat16: 6e-2}

_REFUSALS = (
    BadSample, TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError,
)  # fmt: skip
_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the self-check.

    Attributes:
        check: what was checked.
        result: what was found. A step that could not be run is told apart from one that passed,
            and from one that has nothing to check in this model.
        detail: numbers, or what is wrong, or why the step was not run.
    """

    check: str
    result: Result
    detail: str

    @property
    def passed(self) -> bool | None:
        """Whether it passed; None if it was not run, does not apply, or is neither."""
        return {PASS: True, FAIL: False}.get(self.result)


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory, on a GPU or on the CPU."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in _OUT_OF_MEMORY)


def refusal(vlm: VLM, run: Callable[[], Any]) -> str | None:
    """Why a model refuses what it is given, in one line; None if it runs.

    Args:
        vlm: the model.
        run: a call that makes the model run.

    Raises:
        UserError: there is not enough memory, which says nothing about what the model can do.
    """
    try:
        run()
    except (MemoryError, *_REFUSALS) as error:
        line = first_line(error)
        if is_out_of_memory(error):
            raise _too_little_memory(vlm, error) from error
        known = isinstance(error, (BadSample, UserError))
        return line if known else f"{type(error).__name__}: {line}"
    return None


@contextmanager
def within_memory(vlm: VLM) -> Iterator[None]:
    """Say in one line if the block runs out of memory, which is not the model's fault.

    Raises:
        UserError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_little_memory(vlm, error) from error


def _too_little_memory(vlm: VLM, error: Exception) -> UserError:
    return UserError(
        f"{vlm.name}: out of memory on {vlm.device} during the self-check: free memory, load the "
        f"model with a smaller dtype, or spread it with device_map ({first_line(error)})"
    )


def outcome(passed: bool, detail: str) -> Outcome:
    """What a step that was run finds."""
    return PASS if passed else FAIL, detail


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value; infinite if it is not a number."""
    expected = expected.float()
    error = (found.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-9)
    return float(error) if bool(error.isfinite()) else math.inf


def vector_error(
    found: Float[Tensor, "n heads head_dim"], expected: Float[Tensor, "n heads head_dim"]
) -> float:
    """The largest relative error over the dimensions of vectors; infinite if it is not a number.

    A few dimensions of a key can be a hundred times larger than the others, and compared with them
    no difference elsewhere would be seen. So a difference is divided by the largest value of its
    own dimension, or of the median dimension where that is larger: rounding of small dimensions is
    not an error.
    """
    expected = expected.float()
    size = expected.abs().amax(0)
    scale = size.clamp_min(max(float(size.median()), 1e-9))
    error = ((found.float() - expected).abs() / scale).max()
    return float(error) if bool(error.isfinite()) else math.inf
