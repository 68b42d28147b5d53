"""The part of the self-check that is about labels: other pixels change what they say, no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from keygap.benchmarks.sample import BadSample, Piece, Sample, image_then_question
from keygap.capture.batches import on_device
from keygap.capture.features import image_mask, visible_features
from keygap.capture.hooks import Capture
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.tokens import TokenLabels

FRAMES = 4  # pictures of the self-check's video


def check_samples() -> list[Sample]:
    generator = np.random.default_rng(0)
    made = []
    for number, (size, question) in enumerate(
        (((64, 48), "What colour is it?"), ((48, 64), "Is there a red circle in the image or not?"))
    ):
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        made.append(
            Sample(
                id=str(number),
                images=(Image.fromarray(pixels),),
                question=question,
                prompt=image_then_question(question),
            )
        )
    return made


def labels_are_what_pixels_change(vlm: VLM, batch: Batch) -> tuple[bool | None, str]:
    patches = sum(int((_patches(labels)).sum()) for labels in batch.labels)
    inputs = on_device(vlm, batch)
    pixels = [n for n, v in inputs.items() if "pixel" in n or "patches" in n]
    pixels = [n for n in pixels if torch.is_tensor(inputs[n]) and inputs[n].is_floating_point()]
    if not pixels:
        return False, f"no pixels among the model inputs: {', '.join(inputs)}"
    generator = torch.Generator().manual_seed(0)
    if vlm.fusion == "early fusion":  # a code need not change with its pixels: take them all away
        other_inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    else:
        moved = {name: inputs[name] + _noise(inputs[name], generator) for name in pixels}
        for name in {"flattened_patches"} & set(moved):  # begin with each patch's row and column
            moved[name][..., :2] = inputs[name][..., :2]
        other_inputs = {**inputs, **moved}
    if vlm.fusion == "cross-attention":
        return _features(vlm, inputs, other_inputs)
    with Capture(vlm, ["hidden"], [0]) as capture:
        one, other = (capture(i)["hidden", 0].flatten(2) for i in (inputs, other_inputs))
    wrong = []
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        if one.shape[1] < size:
            return False, f"{size} labels, but {one.shape[1]} positions enter the text layers"
        changed = (one[row, :size] != other[row, :size]).any(-1).cpu().numpy()
        discrete = vlm.fusion == "early fusion"
        expected = labels.modality == "image" if discrete else _patches(labels)
        wrong.append(int((changed != expected).sum()))
    detail = f"{patches} image positions in {len(batch.labels)} prompts"
    return sum(wrong) == 0, detail if not sum(wrong) else f"{sum(wrong)} positions differ; {detail}"


def _features(vlm: VLM, inputs: dict[str, Any], other_inputs: dict[str, Any]) -> tuple[bool, str]:
    """Keys of a cross-attention layer: pixels change all labelled ones, padding counts nothing."""
    layer = vlm.layers[vlm.indices("cross")[0]]
    with Capture(vlm, ["key"], [layer.index]) as capture:
        one, other = (capture(i)["key", layer.index] for i in (inputs, other_inputs))
    visible = visible_features(inputs, one.shape[1]).to(one.device)
    changed = (one != other).flatten(2).any(-1)
    still = int((visible & ~changed).sum())

    outputs: list[Tensor] = []

    def handler(call: AttentionCall) -> Any:
        padding = ~visible[:, None, :, None].expand_as(call.key).to(call.key.device)
        outputs.append(replace(call, key=call.key.masked_fill(padding, 1.0)).proceed()[0])
        outputs.append((result := call.proceed())[0])
        return result

    assert layer.attention is not None  # it attends across
    with torch.no_grad(), AttentionTap([layer.attention], handler):
        vlm.forward(inputs)
    looking = image_mask(inputs).flatten(2).any(-1)  # text before an image looks at nothing real
    moved, plain = (output[looking.to(output.device)] for output in outputs)
    detail = f"{int(visible.sum())} image features are the keys of layers " + ", ".join(
        map(str, vlm.indices("cross"))
    )
    if still:
        return False, f"{still} of them do not change with the pixels; {detail}"
    if not torch.equal(plain, moved):
        return False, f"there are others that text attends to; {detail}"
    return True, detail


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _patches(labels: TokenLabels) -> np.ndarray:
    return (labels.modality != "text") & (labels.role != "separator")


@torch.no_grad()
def several_images(vlm: VLM) -> tuple[bool | None, str]:
    one, two = check_samples()
    text = replace(two.prompt[1], text=" and this? ")
    prompt = (one.prompt[0], one.prompt[1], replace(two.prompt[0], image=1), text)
    both = replace(one, images=(*one.images, *two.images), prompt=prompt)
    try:
        batch = vlm.prompter([both])
        vlm.forward(on_device(vlm, batch))
    except (BadSample, RuntimeError, ValueError, IndexError) as error:
        return None, f"not for this model: {str(error).splitlines()[0][:120]}"
    found = set(batch.labels[0].image[_patches(batch.labels[0])].tolist())
    if vlm.fusion != "cross-attention" and found != {0, 1}:
        return False, f"positions of images {sorted(found)} instead of 0 and 1"
    return labels_are_what_pixels_change(vlm, batch)


@torch.no_grad()
def video(vlm: VLM) -> tuple[bool | None, str]:
    """Pixels of a video change the positions labelled as its, and no other."""
    (one, _) = check_samples()
    generator = np.random.default_rng(1)
    frames = generator.integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    video = tuple(Image.fromarray(frame) for frame in frames)
    prompt = (Piece("video"), one.prompt[1])
    sample = replace(one, images=(), videos=(video,), prompt=prompt)
    try:
        batch = vlm.prompter([sample])
        vlm.forward(on_device(vlm, batch))
    except (BadSample, RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
        return None, f"not for this model: {(str(error).splitlines() or [''])[0][:120]}"
    passed, detail = labels_are_what_pixels_change(vlm, batch)
    known = batch.labels[0].frame
    return passed, f"{detail}, {known.max() + 1 or 'unknown'} frames of {FRAMES} pictures"
