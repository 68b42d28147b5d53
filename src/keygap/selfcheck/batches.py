"""A sample in a batch gives the vectors that it gives alone; where it does not, it is read alone.

Batches mix samples with one image and with several, images of different sizes, and short with long
text. A model may let these change each other: by tiles that are padded to the largest image of a
batch, by positions that are counted on from one prompt to the next, by padding that is attended to.
Its samples are then read one by one, whatever batch size was asked for.

Rounding differs between batch sizes too, by an amount that depends on the device and grows with
depth. It is measured: a batch of copies of one sample has nothing to change it but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from keygap.benchmarks import Sample
from keygap.capture.features import visible_features
from keygap.capture.hooks import Capture
from keygap.capture.sites import SITES
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.prompting.prompter import Prompter
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import (
    ALONE,
    FAIL,
    NOISE,
    NOT_HERE,
    NOT_RUN,
    PASS,
    Finding,
    Outcome,
    refusal,
    vector_error,
)
from keygap.selfcheck.samples import check_samples, sample_of_a_long_text, sample_of_two_images

Errors = dict[tuple[str, int], float]  # by site and layer
ABOVE_ROUNDING = 4.0  # a difference counts from this many times the difference between copies
MOST_ROUNDING = 10.0  # times NOISE: copies that differ by more change each other

BATCHES = "batched equals single"
# What was found for a prompter's model, by its dtype and its attention function.
_FOUND: WeakKeyDictionary[Prompter, dict[Any, Finding]] = WeakKeyDictionary()


def batches_of(vlm: VLM) -> Finding:
    """Whether samples are read in batches or one by one, found once for a model.

    Args:
        vlm: the model; interventions on it are suspended.

    Returns:
        The finding: ``pass``, or ``one by one`` with the reason.
    """
    implementations = tuple(
        getattr(getattr(layer.attention, "config", None), "_attn_implementation", None)
        for layer in vlm.layers
    )
    known = _FOUND.setdefault(vlm.prompter, {})
    key = (str(vlm.dtype), str(vlm.device), implementations)
    if key not in known:
        with vlm.interventions.suspended(), torch.no_grad():
            known[key] = Finding(BATCHES, *_compared(vlm))
    return known[key]


def read_size(vlm: VLM, batch_size: int) -> int:
    """The samples in one forward pass: 1 for a model whose samples change each other in a batch.

    Args:
        vlm: the model.
        batch_size: what was asked for.
    """
    return 1 if batch_size > 1 and batches_of(vlm).result == ALONE else batch_size


def batched_equals_single(vlm: VLM, batch: Batch) -> Outcome:
    """Vectors of a padded batch of mixed samples are those of each sample alone."""
    found = batches_of(vlm)
    return found.result, found.detail


def left_padding(vlm: VLM, batch: Batch) -> Outcome:
    """A prompt that is padded on the left gives the vectors that it gives alone.

    keygap pads on the right, so a difference concerns only batches of a user's own.
    """
    if vlm.fusion == "cross-attention":
        return NOT_HERE, "keygap pads on the right, and image features are not in the prompt"
    moved, starts = _padded_on_the_left(batch)
    errors: Errors = {}

    def run() -> None:
        sites, layers = _sites(vlm)
        sites = [site for site in sites if SITES[site].kind != "attention"]  # RoPE may be shifted
        with Capture(vlm, sites, layers) as capture:
            together = capture(moved)
            for row, sample in enumerate(check_samples()):
                alone = capture(vlm.prompter([sample]))
                rows = {key: vectors[row, starts[row] :] for key, vectors in together.items()}
                _compare(errors, rows, {key: vectors[0] for key, vectors in alone.items()}, layers)

    if why := refusal(vlm, run):
        return NOT_HERE, f"keygap pads on the right: {why}"
    worst = max(errors.values())
    if worst > NOISE[vlm.dtype]:
        return NOT_HERE, f"keygap pads on the right; on the left vectors differ by {worst:.1e}"
    return PASS, f"worst {worst:.1e}"


def _compared(vlm: VLM) -> Outcome:
    """Compare samples in mixed batches with each alone."""
    pair, mixed = check_samples(), [sample_of_two_images(), sample_of_a_long_text()]
    usable = [sample for sample in mixed if refusal(vlm, partial(_run, vlm, [sample])) is None]
    groups = [pair, [pair[0], *usable]] if usable else [pair]
    errors: Errors = {}
    for group in groups:
        if why := refusal(vlm, partial(_run, vlm, group)):
            alone = refusal(vlm, partial(_run, vlm, pair[:1]))
            return (NOT_RUN, alone) if alone else (ALONE, f"a batch is refused: {why}")
        for key, error in _errors(vlm, group).items():
            errors[key] = max(errors.get(key, 0.0), error)
    keys = _of_keys(errors)
    worst = max(keys.values())
    sites = ", ".join(dict.fromkeys(site for site, _ in keys))
    detail = f"{sites}, worst {worst:.1e}"
    if worst <= NOISE[vlm.dtype]:
        return PASS, detail
    if worst <= (limit := _rounding(vlm, [*pair, *usable])):
        return PASS, f"{detail}, of which rounding explains {limit:.1e}"
    if not math.isfinite(worst):
        return FAIL, f"vectors are not finite, or not as many in a batch as alone; {detail}"
    return ALONE, f"{_why(vlm, errors)}; {detail}"


def _of_keys(errors: Errors) -> Errors:
    """Errors of keys; those of ``hidden`` where no layer has keys of its own."""
    return {name: error for name, error in errors.items() if name[0] != "hidden"} or errors


def _rounding(vlm: VLM, samples: Sequence[Sample]) -> float:
    """The largest difference that rounding explains, by batches of two copies of each sample."""
    copies = (max(_of_keys(_errors(vlm, [sample] * 2)).values()) for sample in samples)
    return min(ABOVE_ROUNDING * max(copies), MOST_ROUNDING * NOISE[vlm.dtype])


def _run(vlm: VLM, samples: Sequence[Sample]) -> None:
    vlm.forward(vlm.prompter(samples))


def _why(vlm: VLM, errors: Errors) -> str:
    """What lets samples change each other."""
    noise = NOISE[vlm.dtype]
    first = min(layer for _, layer in errors)
    if errors["hidden", first] > noise:
        return "image features of a sample depend on the other samples of its batch"
    if errors.get(("k_proj", first), 1.0) <= noise < errors.get(("key", first), 0.0):
        return "the model counts positions of its rotary embedding on through a batch"
    if vlm.fusion == "cross-attention":
        return "image features depend on the other images of their batch, or padding is attended to"
    return "padding reaches attention"


def _sites(vlm: VLM) -> tuple[list[str], list[int]]:
    """Sites that are compared, and the layers that attend."""
    layers = _own(vlm)
    sites = [name for name in ("k_proj", "key") if _everywhere(vlm, name)]
    return [*sites, "hidden"], [layer.index for layer in layers]


def _everywhere(vlm: VLM, site: str) -> bool:
    """Whether every layer that attends has a site."""
    return all(layer.has_site(site, SITES[site].kind) for layer in _own(vlm))


def _own(vlm: VLM) -> list[DecoderLayer]:
    """The layers that attend to keys of their own."""
    return [layer for layer in vlm.layers if layer.attention is not None and layer.shares is None]


def _errors(vlm: VLM, samples: Sequence[Sample]) -> Errors:
    """The largest relative error over samples, by site and layer; ``hidden`` at the first only."""
    errors: Errors = {}
    sites, layers = _sites(vlm)
    batch = vlm.prompter(samples)
    with Capture(vlm, sites, layers) as capture:
        together = capture(batch)
        for row, sample in enumerate(samples):
            single = vlm.prompter([sample])
            alone = capture(single)
            rows = {key: _unpadded(vlm, key, v, batch, row) for key, v in together.items()}
            own = {key: _unpadded(vlm, key, v, single, 0) for key, v in alone.items()}
            _compare(errors, rows, own, layers)
    return errors


def _unpadded(
    vlm: VLM, key: tuple[str, int], vectors: Tensor, batch: Batch, row: int
) -> Float[Tensor, "n heads head_dim"]:
    """Vectors of one prompt of a batch, without those of padding."""
    site, layer = key
    if SITES[site].of_keys and vlm.layers[layer].attends == "cross":
        seen = visible_features(batch.inputs, vectors.shape[1])[row]
        return vectors[row, seen.to(vectors.device)]
    inserted = vectors.shape[1] - batch.inputs["input_ids"].shape[1]
    return vectors[row, : len(batch.labels[row]) + inserted]


def _compare(
    errors: Errors,
    rows: dict[tuple[str, int], Tensor],
    alone: dict[tuple[str, int], Tensor],
    layers: Sequence[int],
) -> None:
    """Add the errors of one sample."""
    for (site, layer), vectors in alone.items():
        if site == "hidden" and layer != layers[0]:
            continue
        together = rows[site, layer]
        same = together.shape == vectors.shape
        error = vector_error(together, vectors) if same else math.inf
        errors[site, layer] = max(errors.get((site, layer), 0.0), error)


def _padded_on_the_left(batch: Batch) -> tuple[dict[str, Any], list[int]]:
    """Model inputs with the padding of every prompt moved before it, and where prompts begin."""
    rows, width = batch.inputs["input_ids"].shape
    starts = [width - len(labels) for labels in batch.labels]
    inputs: dict[str, Any] = dict(batch.inputs)
    for name, values in inputs.items():
        if torch.is_tensor(values) and values.shape[:2] == (rows, width):
            moved = [torch.roll(row, start, 0) for row, start in zip(values, starts, strict=True)]
            inputs[name] = torch.stack(moved)
    return inputs, starts
