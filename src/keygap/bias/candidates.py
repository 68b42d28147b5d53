"""The possible answers to a sample, and whether its own is one of them."""

from __future__ import annotations

from collections.abc import Sequence

from keygap.benchmarks import Sample

UNPUBLISHED = "the right answer is not published"


def candidates_of(sample: Sample, closed: Sequence[str]) -> tuple[str, ...]:
    """The possible answers to a sample: the letters of its options, or a benchmark's closed set.

    Args:
        sample: the sample.
        closed: the answers that all questions of the benchmark share; empty if there are none.

    Returns:
        The candidates; empty for an open question.
    """
    return sample.letters or tuple(closed)


def why_not_scored(sample: Sample, candidates: Sequence[str], least: int = 0) -> str | None:
    """Give the reason why an answer to a sample cannot be called right or wrong; None if it can.

    The right answer has to be written as the candidate is, in upper and lower case too.

    Args:
        sample: the sample.
        candidates: the possible answers; none for an open question.
        least: how many candidates are needed.
    """
    if sample.answer is None:
        return UNPUBLISHED
    if len(candidates) < least:
        return "there are no answers to choose from"
    if candidates and sample.answer not in candidates:
        return f"the answer {sample.answer!r} is not among the options {', '.join(candidates)}"
    return None
