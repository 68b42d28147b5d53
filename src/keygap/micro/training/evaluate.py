"""Accuracy of an embedded model on easy-VQA's test split, by question type.

The answer is the likeliest of the 13 that exist; their first tokens differ, so one forward pass
decides. Beside it stand the same language model without the image, and for yes/no the rule that
reads the wording alone: "no", and "yes" to a negated question.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from keygap.benchmarks.sources.easy_vqa import EasyVQA, subject
from keygap.micro.checkpoint import assemble, connector_weights
from keygap.micro.training.packing import IGNORED, Packer, answer_logits, questions_by_image
from keygap.micro.training.train import image_features
from keygap.progress import track

IMAGES_PER_STEP = 32
KINDS = ("yes/no", "shape", "colour", "all")


@torch.inference_mode()
def evaluate(connector: str, weights: Path | None = None) -> pd.DataFrame:
    """Accuracy over all questions of the 1,000 test images.

    Args:
        connector: one of ``CONNECTORS``.
        weights: a connector's file; by default the one that ships.

    Returns:
        Rows ``yes/no``, ``shape``, ``colour``, ``all``; columns type, questions, accuracy,
        without_image, by_wording.
    """
    model, processor = assemble(connector)
    model.set_attn_implementation({"text_config": "eager"})  # faster with a mask of blocks
    model.model.multi_modal_projector.load_state_dict(
        load_file(weights) if weights else connector_weights(connector)
    )
    paths, by_image = questions_by_image("test")
    features = image_features(model, processor, paths)
    projector = model.model.multi_modal_projector.float()
    answers = EasyVQA("test").answers
    packer = Packer(processor)
    first = [packer.ids(answer)[0] for answer in answers]
    assert len(set(first)) == len(first), "answers that share a first token need a longer look"

    def score(with_image: bool) -> tuple[list[str], np.ndarray]:
        kinds: list[str] = []
        right: list[np.ndarray] = []
        pack_of = packer if with_image else Packer(processor, with_image=False)
        items = sorted(by_image.items())
        starts = range(0, len(items), IMAGES_PER_STEP)
        what = "with images" if with_image else "without images"
        for start in track(starts, len(starts), what):
            chunk = items[start : start + IMAGES_PER_STEP]
            pack = pack_of(chunk)
            tokens = projector(features[pack.image_index].float()) if with_image else None
            logits, _ = answer_logits(model, tokens, pack)
            starts_answer = pack.first[pack.labels != IGNORED]
            guess = logits[starts_answer][:, first].argmax(-1)
            truth = [answer for _, pairs in chunk for _, answer in pairs]
            right.append(np.asarray([answers[g] == t for g, t in zip(guess, truth, strict=True)]))
            kinds += [subject(answer) for answer in truth]
        return kinds, np.concatenate(right)

    kinds, with_image = score(True)
    _, without = score(False)
    asked = [pair for _, pairs in sorted(by_image.items()) for pair in pairs]
    by_wording = np.asarray([answer == guess_by_wording(text) for text, answer in asked])
    rows = []
    for kind in KINDS:
        chosen = np.asarray([kind in (each, "all") for each in kinds])
        rows.append(
            {
                "type": kind,
                "questions": int(chosen.sum()),
                "accuracy": float(with_image[chosen].mean()),
                "without_image": float(without[chosen].mean()),
                "by_wording": float(by_wording[chosen].mean()),
            }
        )
    return pd.DataFrame(rows)


def guess_by_wording(question: str) -> str:
    """ "yes" to a negated question and "no" to any other: most shapes and colours are not there."""
    return "yes" if {"no", "not"} & set(question.split()) else "no"
