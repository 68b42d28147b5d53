"""Labels are right if other pixels change the states at the labelled positions, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import BatchFeature

from keygap.benchmarks import Sample
from keygap.capture.features import image_mask, visible_features
from keygap.capture.hooks import Capture
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import FAIL, NOT_HERE, NOT_RUN, PASS, Outcome, refusal
from keygap.selfcheck.samples import (
    FRAMES,
    sample_of_a_video,
    sample_of_two_images,
)
from keygap.tokens import TokenLabels


def labels_are_what_pixels_change(vlm: VLM, batch: Batch) -> Outcome:
    """Other pixels change what enters the first layer at image positions, and nowhere else.

    In a model with cross-attention, they change the keys that are image features.
    """
    pixels = [name for name, values in batch.inputs.items() if _are_pixels(name, values)]
    if not pixels:
        return FAIL, f"no pixels among the model inputs: {', '.join(batch.inputs)}"
    other = _with_other_pixels(vlm, batch, pixels)
    if vlm.fusion == "cross-attention":
        return _features(vlm, batch, other)
    with Capture(vlm, ["hidden"], [0]) as capture:
        one, moved = (capture(each)["hidden", 0].flatten(2) for each in (batch, other))
    wrong = 0
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        if one.shape[1] < size:
            return FAIL, f"{size} labels, but {one.shape[1]} positions enter the text layers"
        changed = (one[row, :size] != moved[row, :size]).any(-1).cpu().numpy()
        discrete = vlm.fusion == "early fusion"
        expected = labels.modality == "image" if discrete else _patches(labels)
        wrong += int((changed != expected).sum())
    patches = sum(int(_patches(labels).sum()) for labels in batch.labels)
    detail = f"{patches} image positions in {len(batch.labels)} prompts"
    return (FAIL, f"{wrong} positions differ; {detail}") if wrong else (PASS, detail)


def several_images(vlm: VLM, batch: Batch) -> Outcome:
    """Two images in one prompt are labelled apart, each as the one that it is."""
    found = _run(vlm, sample_of_two_images())
    if isinstance(found, tuple):
        return found
    if vlm.fusion != "cross-attention":
        images = set(found.labels[0].image[_patches(found.labels[0])].tolist())
        if images != {0, 1}:
            return FAIL, f"positions of images {sorted(images)} instead of 0 and 1"
        if vlm.fusion != "early fusion" and (still := _unmoved_by_the_second(vlm, found)):
            return FAIL, f"{still} positions of image 1 do not change with the second picture"
    return labels_are_what_pixels_change(vlm, found)


def _unmoved_by_the_second(vlm: VLM, batch: Batch) -> int:
    """How many positions labelled as the second picture's do not change with it.

    Those of the first may change too, where a vision model sees both at once.
    """
    other = vlm.prompter([sample_of_two_images(second_seed=1)])
    with Capture(vlm, ["hidden"], [0]) as capture:
        one, moved = (capture(each)["hidden", 0].flatten(2)[0] for each in (batch, other))
    labels = batch.labels[0]
    if one.shape != moved.shape:
        return int((labels.image == 1).sum())
    changed = (one != moved).any(-1).cpu().numpy()[: len(labels)]
    shown = _patches(labels) & (labels.role != "padding")
    return int((shown & (labels.image == 1) & ~changed).sum())


def video(vlm: VLM, batch: Batch) -> Outcome:
    """Pixels of a video change the positions that are labelled as the video's, and no others."""
    found = _run(vlm, sample_of_a_video())
    if isinstance(found, tuple):
        return found
    passed, detail = labels_are_what_pixels_change(vlm, found)
    frames = found.labels[0].frame.max() + 1 or "unknown"
    return passed, f"{detail}, {frames} frames of {FRAMES} pictures"


def _run(vlm: VLM, sample: Sample) -> Batch | Outcome:
    """The batch of a sample that a model runs on, or why it does not.

    A sample that the prompter refuses with a reason is not for this model. Whatever else goes wrong
    says nothing about what the model can do.
    """
    made: list[Batch] = []

    def run() -> None:
        made.append(vlm.prompter([sample]))
        vlm.forward(made[0])

    why = refusal(vlm, run)
    if why is None:
        return made[0]
    return NOT_RUN if made else NOT_HERE, f"not for this model: {why}"


def _are_pixels(name: str, values: Any) -> bool:
    named = "pixel" in name or "patches" in name
    return named and torch.is_tensor(values) and values.is_floating_point()


def _with_other_pixels(vlm: VLM, batch: Batch, pixels: list[str]) -> Batch:
    """The same batch with noise added to its pixels."""
    inputs = dict(batch.inputs)
    if vlm.fusion == "early fusion":  # a code need not change with its pixels: take them all away
        kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return replace(batch, inputs=BatchFeature(kept))
    generator = torch.Generator().manual_seed(0)
    for name in pixels:
        noise = torch.randn(inputs[name].shape, generator=generator).to(inputs[name])
        if name == "flattened_patches":  # begin with each patch's row and column
            noise[..., :2] = 0
        inputs[name] = inputs[name] + noise
    return replace(batch, inputs=BatchFeature(inputs))


def _patches(labels: TokenLabels) -> np.ndarray:
    return (labels.modality != "text") & (labels.role != "separator")


# --- cross-attention --------------------------------------------------------------------------


def _features(vlm: VLM, batch: Batch, other: Batch) -> Outcome:
    """Keys of a cross-attention layer: pixels change those labelled, and no others count."""
    layer = vlm.layers[vlm.indices("cross")[0]]
    with Capture(vlm, ["key"], [layer.index]) as capture:
        one, moved = (capture(each)["key", layer.index] for each in (batch, other))
    visible = visible_features(batch.inputs, one.shape[1]).to(one.device)
    changed = (one != moved).flatten(2).any(-1)
    detail = f"{int(visible.sum())} image features are the keys of layers " + ", ".join(
        map(str, vlm.indices("cross"))
    )
    if still := int((visible & ~changed).sum()):
        return FAIL, f"{still} of them do not change with the pixels; {detail}"
    if _padding_counts(vlm, batch, layer, visible):
        return FAIL, f"there are others that text attends to; {detail}"
    return PASS, detail


def _padding_counts(
    vlm: VLM, batch: Batch, layer: DecoderLayer, visible: Bool[Tensor, "b s"]
) -> bool:
    """Whether keys that are not visible features change what a cross-attention layer gives."""
    outputs: list[Tensor] = []

    def handler(call: AttentionCall) -> Any:
        padding = ~visible[:, None, :, None].expand_as(call.key).to(call.key.device)
        outputs.append(replace(call, key=call.key.masked_fill(padding, 1.0)).proceed()[0])
        outputs.append((result := call.proceed())[0])
        return result

    assert layer.attention is not None  # it attends across
    with torch.no_grad(), AttentionTap([layer.attention], handler):
        vlm.forward(batch)
    looking = image_mask(batch.inputs).flatten(2).any(-1)  # text before an image sees nothing real
    moved, plain = (output[looking.to(output.device)] for output in outputs)
    return not torch.equal(plain, moved)
