"""``keygap micro evaluate``: accuracy of an embedded model on easy-VQA's test split, by type.

The model's answer is the likeliest of the 13 answers that exist. Their first tokens differ, so one
forward pass decides. For comparison, the table has the accuracy of the same language model without
the image, and that of a rule that reads only the wording of yes/no questions: "yes" to a negated
question and "no" to any other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from keygap.benchmarks.sources.easy_vqa import EasyVQA, subject
from keygap.errors import UserError
from keygap.micro.checkpoint import assemble, connector_weights
from keygap.micro.connectors import known_connector
from keygap.micro.training.packing import (
    IGNORED,
    Items,
    Packer,
    answer_logits,
    questions_by_image,
)
from keygap.micro.training.train import CONNECTOR, image_features
from keygap.progress import track
from keygap.text import first_line

IMAGES_PER_STEP = 32
KINDS = ("yes/no", "shape", "colour", "all")


@torch.inference_mode()
def evaluate(connector: str, weights: Path | None = None) -> pd.DataFrame:
    """Measure the accuracy on all questions about the 1,000 test images.

    Args:
        connector: one of ``CONNECTORS``.
        weights: a connector's file; None means the one that ships.

    Returns:
        Rows ``yes/no``, ``shape``, ``colour``, ``all``; columns type, questions, accuracy,
        without_image, by_wording.

    Raises:
        UserError: there is no such connector, the file has no weights of it, or a package of the
            extra ``micro`` is missing.
    """
    state = _weights(known_connector(connector), weights)
    model, processor = assemble(connector)
    model.set_attn_implementation({"text_config": "eager"})  # faster with a block mask
    projector = model.model.multi_modal_projector
    projector.load_state_dict(state)
    projector.float()
    paths, by_image = questions_by_image("test")
    features = image_features(model, processor, paths)

    def tokens_of(images: list[int]) -> Tensor:
        return projector(features[images].float())

    items = sorted(by_image.items())
    pairs = [pair for _, own in items for pair in own]
    answers = [answer for _, answer in pairs]
    with_image = _answered(model, Packer(processor), items, tokens_of)
    without_image = _answered(model, Packer(processor, with_image=False), items, None)
    return _table(
        [subject(answer) for answer in answers],
        accuracy=_equal(with_image, answers),
        without_image=_equal(without_image, answers),
        by_wording=_equal([guess_by_wording(question) for question, _ in pairs], answers),
    )


def _weights(connector: str, path: Path | None) -> dict[str, Tensor]:
    """Weights of a connector from a file; those that ship without one.

    Raises:
        UserError: the file cannot be read, or has weights of something else.
    """
    shipped = connector_weights(connector)
    if path is None:
        return shipped
    try:
        with safe_open(path, framework="pt") as file:
            named = (file.metadata() or {}).get(CONNECTOR, connector)
        found = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}: name a file of keygap micro train") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}): name a file of keygap micro train"
        ) from error
    shapes, known = ({name: one.shape for name, one in state.items()} for state in (found, shipped))
    if named != connector or shapes != known:
        raise UserError(
            f"{path} has no weights of the connector {connector}: give the --connector that it was "
            "trained for, or another file"
        )
    return found


def guess_by_wording(question: str) -> str:
    """Answer without the image: "yes" to a negated question and "no" to any other.

    Most shapes and colours that a question may name are not in the image.
    """
    return "yes" if {"no", "not"} & set(question.split()) else "no"


def _answered(
    model: Any,
    packer: Packer,
    items: Items,
    tokens_of: Callable[[list[int]], Float[Tensor, "images tokens width"]] | None,
) -> list[str]:
    """Return the model's answer to every question.

    Args:
        model: the embedded model.
        packer: with or without the image.
        items: images by number with their questions.
        tokens_of: computes image tokens by the images' numbers; None without the image.
    """
    known = EasyVQA("test").answers
    first = [packer.ids(answer)[0] for answer in known]
    assert len(set(first)) == len(first), "the first token does not tell all answers apart"
    found: list[str] = []
    starts = range(0, len(items), IMAGES_PER_STEP)
    for start in track(starts, len(starts), "with images" if tokens_of else "without images"):
        pack = packer(items[start : start + IMAGES_PER_STEP])
        logits, _ = answer_logits(model, tokens_of(pack.image_index) if tokens_of else None, pack)
        begins_answer = pack.first[pack.labels != IGNORED]
        found += [known[guess] for guess in logits[begins_answer][:, first].argmax(-1)]
    return found


def _equal(given: list[str], answers: list[str]) -> np.ndarray:
    return np.asarray(given) == np.asarray(answers)


def _table(types: list[str], **correct: np.ndarray) -> pd.DataFrame:
    """Average columns of correct answers over the questions of each type."""
    rows = []
    for kind in KINDS:
        chosen = np.asarray([kind in (one, "all") for one in types])
        shares = {name: float(values[chosen].mean()) for name, values in correct.items()}
        rows.append({"type": kind, "questions": int(chosen.sum()), **shares})
    return pd.DataFrame(rows)
