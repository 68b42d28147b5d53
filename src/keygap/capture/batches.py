"""A few of a benchmark's samples as one labelled batch; the bad ones apart, each with its reason.

What is extracted and what is answered must be the same samples, so both come through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from keygap.benchmarks import BadSample, Benchmark, Sample
from keygap.models.batch import Batch
from keygap.models.vlm import VLM

Reasons = dict[str, str]  # sample id -> why it cannot be used


def opened(benchmark: Benchmark, places: Iterable[int]) -> tuple[list[Sample], Reasons]:
    """The samples at these places of the index."""
    samples: list[Sample] = []
    bad: Reasons = {}
    for place in places:
        try:
            samples.append(benchmark.sample(place))
        except BadSample as reason:
            bad[benchmark.index()[place].id] = str(reason)
    return samples, bad


def labelled(vlm: VLM, samples: Sequence[Sample]) -> tuple[list[Sample], Batch | None, Reasons]:
    """Those samples that a model takes, and their batch; None where it takes none.

    All are tried together first: a bad one is rare, and each is prepared once where there is none.
    """
    if not samples:
        return [], None, {}
    try:
        return list(samples), vlm.prompter(samples), {}
    except BadSample:  # which one? each alone tells
        bad: Reasons = {}
        for sample in samples:
            try:
                vlm.prompter([sample])
            except BadSample as reason:
                bad[sample.id] = str(reason)
    good = [sample for sample in samples if sample.id not in bad]
    return good, vlm.prompter(good) if good else None, bad


def on_device(vlm: VLM, batch: Batch) -> dict[str, Any]:
    """A batch's model inputs where the model wants them, floats in its dtype."""
    return dict(batch.inputs.to(vlm.device, dtype=vlm.dtype))
