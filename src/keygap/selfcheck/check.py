"""The self-check: does keygap read this model correctly? Every answer is causal or exact.

- Labels: other pixels change the states that enter the first layer at the positions labelled as
  image patches, and at no others.
- Attention, recomputed from query, key and value with the model's own mask and scale, is what the
  model's attention gives, at every layer.
- A key that is changed on its way into attention changes the logits; without the change, they are
  bit for bit what they were.
- A sample in a padded batch gives the vectors that it gives alone.
- No hook and no tap is left behind.

Interventions on the model are suspended while it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from transformers import AttentionInterface

from keygap.capture.sites import SITES
from keygap.errors import UserError
from keygap.models.attention_tap import calls_attention_function
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.attention import attention_recomputed, changed_key
from keygap.selfcheck.batches import batched_equals_single
from keygap.selfcheck.finding import Finding, Outcome, refusal
from keygap.selfcheck.labels import labels_are_what_pixels_change, several_images, video
from keygap.selfcheck.samples import check_samples

STEPS: tuple[tuple[str, Callable[[VLM, Batch], Outcome]], ...] = (
    ("labels are what pixels change", labels_are_what_pixels_change),
    ("several images in one prompt", several_images),
    ("frames of a video", video),
    ("attention recomputed", attention_recomputed),
    ("a changed key changes the logits", changed_key),
    ("batched equals single", batched_equals_single),
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
    batch = vlm.prompter(check_samples())
    with vlm.interventions.suspended(), torch.no_grad():
        # transformers sets hooks of its own in the first pass, and keeps them
        if why := refusal(vlm, lambda: vlm.forward(batch)):
            raise UserError(
                f"{vlm.name}: the model does not run on what its own processor makes: {why}"
            )
        before = _footprint(vlm)
        findings = [Finding(name, *step(vlm, batch)) for name, step in STEPS]
        same = _footprint(vlm) == before
    detail = "" if same else "hooks or taps were left behind"
    return [*findings, Finding("no hook left", same, detail)]


def cheap_check(vlm: VLM, batch: Batch) -> None:
    """Check the labels of a model's first batch, as the first extraction does by itself.

    Args:
        vlm: the model.
        batch: what the prompter made.

    Raises:
        UserError: the labels do not fit what the pixels change.
    """
    with vlm.interventions.suspended():
        passed, detail = labels_are_what_pixels_change(vlm, batch)
    if passed is False:
        raise UserError(f"{vlm.name}: image positions are labelled wrongly: {detail}")


def frame_of(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings as a table: check, result, detail."""
    words = {True: "pass", False: "FAIL", None: "-"}
    return pd.DataFrame(
        [(item.check, words[item.passed], item.detail) for item in findings],
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
    return (
        f"{vlm.name}: {vlm.architecture}, image and text meet in: {vlm.fusion}; "
        f"connector: {vlm.connector or 'none'}; layers: {kinds}; sites: {', '.join(sites_of(vlm))}"
    )


def sites_of(vlm: VLM) -> list[str]:
    """The sites that every layer with attention has."""
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    tapped = all(calls_attention_function(layer.attention) for layer in layers if layer.attention)
    return [
        name
        for name, site in SITES.items()
        if site.kind == "hidden"
        or (site.kind == "attention" and tapped)
        or (site.kind == "projection" and all(name in layer.projections for layer in layers))
    ]


def _footprint(vlm: VLM) -> list[Any]:
    """Every hook on the model and every registered attention function."""
    functions = AttentionInterface._global_mapping
    hooks = [
        [list(each) for each in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
        for m in vlm.model.modules()
    ]
    return [sorted((name, id(function)) for name, function in functions.items()), hooks]
