"""The self-check: does keygap read this model correctly? Every answer is causal or exact.

- Labels: other pixels change the states that enter the first layer at the positions labelled as
  image patches, and at no others.
- Attention, recomputed from query, key and value with the model's own mask and scale, is what the
  model's attention gives, at every layer.
- A key that is changed on its way into attention changes the logits; without the change, they are
  bit for bit what they were.
- A sample in a padded batch gives the vectors that it gives alone, or is read alone.
- Texts of any length come through the chat template.
- What extraction does at its default settings can be done.
- No hook and no tap is left behind.

Interventions on the model are suspended while it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from transformers import AttentionInterface

from keygap.benchmarks import BadSample
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.attention import attention_recomputed, changed_key
from keygap.selfcheck.batches import BATCHES, batched_equals_single, batches_of, left_padding
from keygap.selfcheck.extraction import default_extraction, sites_of, texts_of_any_length
from keygap.selfcheck.finding import (
    ALONE,
    FAIL,
    NOT_HERE,
    NOT_RUN,
    Finding,
    Outcome,
    outcome,
    refusal,
    within_memory,
)
from keygap.selfcheck.labels import labels_are_what_pixels_change, several_images, video
from keygap.selfcheck.samples import check_samples

STEPS: tuple[tuple[str, Callable[[VLM, Batch], Outcome]], ...] = (
    ("labels are what pixels change", labels_are_what_pixels_change),
    ("several images in one prompt", several_images),
    ("frames of a video", video),
    ("attention recomputed", attention_recomputed),
    ("a changed key changes the logits", changed_key),
    (BATCHES, batched_equals_single),
    ("padded on the left", left_padding),
    ("texts of any length", texts_of_any_length),
    ("extraction at default settings", default_extraction),
)


def check(vlm: VLM) -> list[Finding]:
    """Run the whole self-check, on pictures and questions of its own.

    Args:
        vlm: the model.

    Returns:
        One finding for each step, in order.

    Raises:
        UserError: the model makes no prompt of an image and a text, does not run on one, or does
            not fit into memory.
    """
    try:
        batch = vlm.prompter(check_samples())
    except BadSample as reason:
        raise UserError(
            f"{vlm.name}: no prompt can be made of the self-check's questions: {reason}"
        ) from None
    with vlm.interventions.suspended(), torch.no_grad():
        # transformers sets hooks of its own in the first pass, and keeps them
        if why := refusal(vlm, lambda: vlm.forward(batch)):
            raise UserError(
                f"{vlm.name}: the model does not run on what its own processor makes: {why}"
            )
        before = _footprint(vlm)
        steps = track(STEPS, len(STEPS), f"self-check of {vlm.name}")
        with within_memory(vlm):
            findings = [Finding(name, *run(vlm, batch)) for name, run in steps]
        same = _footprint(vlm) == before
    detail = "" if same else "hooks or taps were left behind"
    return [*findings, Finding("no hook left", *outcome(same, detail))]


def cheap_check(vlm: VLM, batch: Batch) -> Finding:
    """Check the labels of a model's first batch, as every extraction does by itself.

    Args:
        vlm: the model.
        batch: what the prompter made.

    Returns:
        What was found.

    Raises:
        UserError: the labels do not fit what the pixels change.
    """
    with vlm.interventions.suspended(), within_memory(vlm):
        result, detail = labels_are_what_pixels_change(vlm, batch)
    if result == FAIL:
        raise UserError(f"{vlm.name}: image positions are labelled wrongly: {detail}")
    return Finding(STEPS[0][0], result, detail)


def checked_in_extraction(vlm: VLM, first: Batch | None, batch_size: int) -> list[Finding]:
    """What an extraction checks by itself, before it reads a sample.

    Args:
        vlm: the model.
        first: the first usable sample; None if there is none.
        batch_size: what was asked for.

    Returns:
        A finding for each step of ``check``; those that only ``check`` runs are not run.

    Raises:
        UserError: the labels do not fit what the pixels change.
    """
    run: dict[str, Finding] = {}
    if first is not None:
        labels = cheap_check(vlm, first)
        run[labels.check] = labels
    if batch_size == 1:
        run[BATCHES] = Finding(BATCHES, NOT_HERE, "the batch size is 1")
    elif first is not None:
        run[BATCHES] = batches_of(vlm)
    return [
        run.get(name, Finding(name, NOT_RUN, "keygap check runs it, extraction does not"))
        for name, _ in STEPS
    ]


def notes_of(findings: Sequence[Finding]) -> list[str]:
    """What findings mean for the samples of an extraction, one sentence each."""
    return [
        f"samples are read one by one, because in a batch they would change each other: {f.detail}"
        for f in findings
        if f.result == ALONE
    ]


def checked_facts(findings: Sequence[Finding], notes: Sequence[str]) -> dict[str, Any]:
    """The findings and notes of an extraction as plain values, for its manifest."""
    return {
        "self_check": [asdict(finding) for finding in findings],
        "notes": [note for note in notes if note],
    }


def frame_of(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings as a table: check, result, detail."""
    return pd.DataFrame(
        [(item.check, item.result, item.detail) for item in findings],
        columns=["check", "result", "detail"],
    )


def summary(vlm: VLM) -> str:
    """One line: what the model is and where it can be read."""
    words = {"self": "self-attention", "cross": "cross-attention", "none": "other"}
    attends = [layer.attends for layer in vlm.layers]
    kinds = ", ".join(
        f"{attends.count(kind)} {word}" for kind, word in words.items() if kind in attends
    )
    if windows := [layer.window for layer in vlm.layers if layer.window]:
        kinds += f" ({len(windows)} of them with a sliding window of {min(windows)})"
    if vlm.shared:
        kinds += f" ({len(vlm.shared)} of them attend to the keys of earlier layers)"
    return (
        f"{vlm.name}: {vlm.architecture}, image and text meet in: {vlm.fusion}; "
        f"connector: {vlm.connector or 'none'}; layers: {kinds}; sites: {', '.join(sites_of(vlm))}"
    )


def _footprint(vlm: VLM) -> list[Any]:
    """Every hook on the model and every registered attention function."""
    functions = AttentionInterface._global_mapping
    hooks = [
        [list(each) for each in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
        for m in vlm.model.modules()
    ]
    return [sorted((name, id(function)) for name, function in functions.items()), hooks]
