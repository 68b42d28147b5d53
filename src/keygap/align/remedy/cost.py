"""What a change costs: the time of a forward pass with it over that without it.

The speed of a machine drifts, so passes with and without the change take turns in one run, and the
result is a ratio of times of the same round.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch

from keygap.align.remedy.result import Cost
from keygap.models.batch import Batch
from keygap.models.interventions import Intervention
from keygap.models.vlm import VLM

ROUNDS = 7


def cost_of(
    vlm: VLM,
    batch: Batch,
    intervention: Intervention,
    parameters: int,
    rounds: int = ROUNDS,
) -> Cost:
    """Time forward passes with and without a change.

    Each round is a bare pass, a changed one and a bare one. The ratio is that of the changed pass
    to the mean of the two bare ones, and its median over rounds is reported.

    Args:
        vlm: the model.
        batch: the prompts of a pass.
        intervention: the change.
        parameters: the numbers that the change adds to the model.
        rounds: how many, after one that is not counted.
    """
    ratios, bares = [], []
    for number in range(rounds + 1):
        before = _seconds(vlm, batch, nullcontext())
        changed = _seconds(vlm, batch, vlm.interventions.applied(intervention))
        after = _seconds(vlm, batch, nullcontext())
        if number:  # the first one fills caches and the allocator
            bares.append((before + after) / 2)
            ratios.append(changed / bares[-1])
    tokens = sum(len(labels) for labels in batch.labels)
    device = vlm.device.type
    return Cost(
        median(ratios), min(ratios), max(ratios), median(bares) / tokens, tokens, rounds,
        parameters, device,
    )  # fmt: skip


def _seconds(vlm: VLM, batch: Batch, applied: AbstractContextManager[None]) -> float:
    """The time of one pass; setting the hooks of a change is not a part of it."""
    with applied, torch.inference_mode():
        _wait(vlm)
        start = time.perf_counter()
        vlm.forward(batch)
        _wait(vlm)
        return time.perf_counter() - start


def _wait(vlm: VLM) -> None:
    """Wait for the work that an accelerator still has to do."""
    if vlm.device.type != "cpu":
        torch.accelerator.synchronize(vlm.device)
