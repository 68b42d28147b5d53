"""The self-check: does keygap read this model correctly? Every answer is causal or exact.

- labels: other pixels change the states that enter the first layer at the positions labelled image
  patch and at no other;
- attention, recomputed from the captured query, key and value with the model's own mask and scale,
  is what the model's attention gave, at every layer;
- a key changed on its way into attention changes the logits, and once the tap is gone they are
  bit for bit what they were;
- a sample in a padded batch gives the vectors that it gives alone;
- no hook and no tap is left behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

from keygap.benchmarks.sample import Sample
from keygap.capture.attention import attention_weights
from keygap.capture.batches import on_device
from keygap.capture.hooks import Capture
from keygap.capture.sites import SITES
from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall, AttentionTap, calls_attention_function
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.labels import (
    check_samples,
    labels_are_what_pixels_change,
    several_images,
    video,
)

# Differences between two ways of computing the same, relative to the largest value.
NOISE = {torch.float32: 2e-4, torch.float64: 1e-6, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Finding:
    """One line of the self-check; ``passed`` is None where it does not apply."""

    check: str
    passed: bool | None
    detail: str


def check(vlm: VLM) -> list[Finding]:
    """The whole self-check, on pictures and questions of its own.

    Raises:
        UserError: the model makes no prompt of an image and a text, or does not run on one.
    """
    samples = check_samples()
    batch = vlm.prompter(samples)
    try:
        with torch.no_grad():  # transformers itself sets hooks on the first pass, and keeps them
            vlm.forward(on_device(vlm, batch))
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise UserError(
            f"{vlm.name}: the model does not run on what its own processor makes: {reason}"
        ) from error
    before = _footprint(vlm)
    steps: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
        ("labels are what pixels change", lambda: labels_are_what_pixels_change(vlm, batch)),
        ("several images in one prompt", lambda: several_images(vlm)),
        ("frames of a video", lambda: video(vlm)),
        ("attention recomputed", lambda: _attention(vlm, batch)),
        ("a changed key changes the logits", lambda: _causal(vlm, batch)),
        ("batched equals single", lambda: _batched(vlm, samples, batch)),
    ]
    findings = [Finding(name, *step()) for name, step in steps]
    same = _footprint(vlm) == before
    findings.append(Finding("no hook left", same, "" if same else "hooks or taps were left behind"))
    return findings


def frame_of(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings as a table: check, result, detail."""
    words = {True: "pass", False: "FAIL", None: "-"}
    return pd.DataFrame(
        [(item.check, words[item.passed], item.detail) for item in findings],
        columns=["check", "result", "detail"],
    )


def summary(vlm: VLM) -> str:
    """One line: what the model is and where it can be read."""
    attends = [layer.attends for layer in vlm.layers]
    kinds = ", ".join(
        f"{attends.count(kind)} {word}"
        for kind, word in (
            ("self", "self-attention"),
            ("cross", "cross-attention"),
            ("none", "other"),
        )
        if kind in attends
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


def cheap_check(vlm: VLM, batch: Batch) -> None:
    """What the first extraction of a model checks by itself, on its first batch.

    Raises:
        UserError: the labels do not fit what the pixels change.
    """
    passed, detail = labels_are_what_pixels_change(vlm, batch)
    if passed is False:
        raise UserError(f"{vlm.name}: image positions are labelled wrongly: {detail}")


# --- attention --------------------------------------------------------------------------------


def _attention(vlm: VLM, batch: Batch) -> tuple[bool | None, str]:
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    modules = [layer.attention for layer in layers if layer.attention is not None]
    if not all(calls_attention_function(module) for module in modules):
        return None, f"{type(modules[0]).__name__} calls no attention function: k_proj only"
    index = {id(layer.attention): layer.index for layer in layers}
    errors: dict[int, float] = {}
    skipped: list[str] = []

    def handler(call: AttentionCall) -> Any:
        output = call.proceed()
        states = output[0] if isinstance(output, tuple) else output
        try:
            expected = recomputed(call)
        except NotImplementedError as reason:
            skipped.append(str(reason))
            return output
        error = (expected - states.float()).abs().max() / states.float().abs().max().clamp_min(1e-9)
        layer = index[id(call.module)]
        errors[layer] = max(errors.get(layer, 0.0), _finite(error))
        return output

    with torch.no_grad(), AttentionTap(modules, handler):
        vlm.forward(on_device(vlm, batch))
    if skipped:
        return None, skipped[0]
    missing = [layer.index for layer in layers if layer.index not in errors]
    if missing:
        return False, f"layers {missing} never called the attention function"
    worst = max(errors, key=lambda layer: errors[layer])
    detail = f"{len(errors)} layers, worst {errors[worst]:.1e} at layer {worst}"
    return errors[worst] <= NOISE[vlm.dtype], detail


def recomputed(call: AttentionCall) -> Float[Tensor, "b t heads value_dim"]:
    """Attention from query, key, value, mask and scale alone, in float32.

    Raises:
        NotImplementedError: the mask has a form that only its implementation reads.
    """
    if call.mask is not None and not (torch.is_tensor(call.mask) and call.mask.ndim == 4):
        raise NotImplementedError(
            f"the mask of {type(call.mask).__name__} form cannot be recomputed"
        )
    everywhere = torch.arange(call.query.shape[2], device=call.query.device)
    weights, _ = attention_weights(call, everywhere.expand(len(call.query), -1))
    group = call.query.shape[1] // call.key.shape[1]
    return (weights @ call.value.repeat_interleave(group, 1).float()).transpose(1, 2)


def _causal(vlm: VLM, batch: Batch) -> tuple[bool | None, str]:
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    cross = [layer for layer in layers if layer.attends == "cross"]
    layer = (cross or layers)[len(cross or layers) // 2]
    if layer.attention is None or not calls_attention_function(layer.attention):
        return None, "the layer calls no attention function"
    image = np.flatnonzero(batch.labels[0].modality == "image")
    position = int(image[len(image) // 2]) if len(image) and layer.attends == "self" else 0
    inputs = on_device(vlm, batch)

    def handler(call: AttentionCall) -> Any:
        key = call.key.clone()
        key[0, :, position] += key.abs().max() * torch.sign(key[0, :, position])
        return replace(call, key=key).proceed()

    with torch.no_grad():
        plain = _logits(vlm, inputs)
        with AttentionTap([layer.attention], handler):
            moved = _logits(vlm, inputs)
        after = _logits(vlm, inputs)
    change = float((moved[0] - plain[0]).abs().max())
    where = f"key {position} of layer {layer.index}: logits move by {change:.1e}"
    if not torch.equal(plain, after):
        return False, f"{where}, and do not come back"
    return change > 0, where


def _logits(vlm: VLM, inputs: dict[str, Any]) -> Tensor:
    """Logits from one seed: a model may draw random numbers (a diffusion model its canvas)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return vlm.forward(inputs).logits.float()


# --- batches and traces -----------------------------------------------------------------------


def _batched(vlm: VLM, samples: Sequence[Sample], batch: Batch) -> tuple[bool | None, str]:
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    sites = ["k_proj"] if all("k_proj" in layer.projections for layer in layers) else []
    if all(calls_attention_function(layer.attention) for layer in layers if layer.attention):
        sites.append("key")
    worst: dict[str, float] = {}
    first = layers[0].index
    sites.append("hidden")
    with Capture(vlm, sites, [layer.index for layer in layers]) as capture:
        together = capture(on_device(vlm, batch))
        for row, sample in enumerate(samples):
            alone = capture(on_device(vlm, vlm.prompter([sample])))
            for (site, layer), vectors in alone.items():
                if site == "hidden" and layer != first:
                    continue
                size = min(vectors.shape[1], len(batch.labels[row]))
                one, many = vectors[0, :size].float(), together[site, layer][row, :size].float()
                error = _finite((one - many).abs().max() / one.abs().max().clamp_min(1e-9))
                name = f"{site} of layer {layer}"
                worst[name] = max(worst.get(name, 0.0), error)
    keys = {name: error for name, error in worst.items() if not name.startswith("hidden")} or worst
    detail = f"{', '.join(sites[:-1]) or 'hidden'}, worst {max(keys.values()):.1e}"
    noise = NOISE[vlm.dtype]
    if max(keys.values()) <= noise:
        return True, detail
    if worst[f"hidden of layer {first}"] > noise:
        why = "image features of a sample depend on the other samples of its batch"
    elif (
        worst.get(f"k_proj of layer {first}", 1.0) <= noise < worst.get(f"key of layer {first}", 0)
    ):
        why = "the model counts positions of its rotary embedding on through a batch"
    else:
        why = "padding reaches attention"
    return False, f"{why}: read with a batch size of 1; {detail}"


def _finite(error: Tensor) -> float:
    """An error as a number; what is not a number is the largest error there is."""
    return float(error) if bool(error.isfinite()) else math.inf


def _footprint(vlm: VLM) -> list[Any]:
    """Every hook on the model and every registered attention function."""
    return [
        sorted((name, id(function)) for name, function in _functions()),
        [list(hooks) for module in vlm.model.modules() for hooks in _hooks(module)],
    ]


def _functions() -> Iterator[tuple[str, Any]]:
    yield from AttentionInterface._global_mapping.items()


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
    )
